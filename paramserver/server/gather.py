"""One question put to every chunk while z stands still, and the sum of the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paramserver.messages import Array, Fields, Task

#: What an answer carries, by task; "p" stands for the size of z, "k" for the support's, "t" for a line's steps,
#: "n" for the free coordinates' number, "*" for any.
SHAPES: dict[Task, dict[str, tuple[str | int, ...]]] = {
    Task.SURVEY: {"survey": ("*",)},
    Task.NULL: {"f": (), "g": ("n",), "H": ("n", "n")},
    Task.VERIFY: {"f": (), "g": ("p",), "H": ("k", "k"), "reach": ("p",), "drift": (2,)},
    Task.CONJUGATE: {"fenchel": (), "f": ()},
    Task.LINE: {"values": ("t",)},
    Task.INFER: {
        "sums": (5,),
        "observed": ("p", "p"),
        "expected": ("p", "p"),
        "meat": ("p", "p"),
        "meat_precision": ("p", "p"),
    },
    Task.LIKELIHOOD: {"log_likelihood": (2,)},
}
MAYBE = ("expected",)  #: or an empty array, where there is none
LARGEST = ("reach", "drift")  #: of all chunks, where others are summed
#: Tasks whose answers may be nan: a likelihood may overflow, or there be none.
HONEST = (Task.INFER, Task.LIKELIHOOD)
#: Steps of the line search, 1 … 2⁻²⁰.
STEPS: Array = np.exp2(-np.arange(21, dtype=np.float64))


@dataclass
class Gather:
    """Answers outstanding and summed.

    Attributes
    ----------
    z : (p,) the point asked about; fields : what the answer needs beside it.
    pending : chunks that have not answered. limit : when to give up. number : which gather it is;
    an answer to an earlier one, at the same z even, is none to this. free : coordinates of the null model.
    """

    task: Task
    z: Array | None
    pending: set[int]
    limit: float
    fields: Fields = field(default_factory=dict)
    total: dict[str, Any] = field(default_factory=dict)
    number: int = 1
    free: int = 0

    def add(self, chunk: int, answer: Fields) -> bool:
        """Sum an answer (surveys are merged elsewhere); False where this chunk's was not awaited."""
        if chunk not in self.pending:
            return False
        self.pending.discard(chunk)
        if self.task is Task.SURVEY:  # the problem merges these, from the slots
            return True
        for name, value in answer.items():
            if name not in self.total:
                self.total[name] = np.array(value, dtype=np.float64)
            elif name in LARGEST:
                self.total[name] = np.maximum(self.total[name], value)
            else:
                self.total[name] += value
        return True

    def wrong(self, answer: Fields, p: int) -> str | None:
        """What is wrong with an answer: None, "shape" or "finite" (+inf is a valid value, and a valid Fenchel term)."""
        shapes = SHAPES[self.task] | ({"dual": ("p",)} if "dual" in self.fields else {})
        if answer.keys() != shapes.keys():
            return "shape"
        sizes = self._sizes(p)
        for name, sides in shapes.items():
            value = np.asarray(answer[name])
            if value.dtype != np.float64 or not self._fits(name, value, [sizes.get(side, side) for side in sides]):
                return "shape"
            if self.task in HONEST:
                continue
            finite = self.task is Task.SURVEY or (self.task is Task.VERIFY and name != "f")
            if np.isnan(value).any() or np.isneginf(value).any() or (finite and np.isinf(value).any()):
                return "finite"
        return "shape" if self.task is Task.SURVEY and not _is_survey(answer["survey"]) else None

    def _sizes(self, p: int) -> dict[Any, int]:
        support = self.fields.get("support")
        k = p if support is None else len(support)
        return {"p": p, "k": k, "t": len(self.fields.get("ts", ())), "n": self.free}

    def _fits(self, name: str, value: np.ndarray, want: list[Any]) -> bool:
        """The asked shape, or a scalar for one number; and that of the answers before."""
        if name in self.total and self.total[name].shape != value.shape:
            return False
        if value.ndim == 0:
            return all(side == 1 for side in want)
        if name in MAYBE and value.size == 0:
            return value.ndim == len(want)
        return value.ndim == len(want) and all(
            side in ("*", size) for side, size in zip(want, value.shape, strict=True)
        )


def _is_survey(survey: Array) -> bool:
    """Rows and columns first: whole numbers."""
    return len(survey) >= 2 and all(0 <= count < 2**53 and count == int(count) for count in survey[:2])
