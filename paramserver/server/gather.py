"""One question put to every chunk while z stands still, and the sum of the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paramserver.messages import Array, Fields, Task

#: What an answer carries, by task; "p" stands for the size of z, "k" for the support's, "t" for a line's steps.
SHAPES: dict[Task, dict[str, tuple[str, ...]]] = {
    Task.SURVEY: {"survey": ("any",)},
    Task.NULL: {"f": (), "g": ("any",), "H": ("any",)},
    Task.VERIFY: {"f": (), "g": ("p",), "H": ("k", "k"), "reach": ("p",), "drift": ("2",)},
    Task.CONJUGATE: {"fenchel": (), "f": ()},
    Task.LINE: {"values": ("t",)},
    Task.INFER: {
        "sums": ("any",),
        "observed": ("p", "p"),
        "expected": ("any",),
        "meat": ("p", "p"),
        "meat_precision": ("p", "p"),
    },
    Task.LIKELIHOOD: {"log_likelihood": ("any",)},
}
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
    an answer to an earlier one, at the same z even, is none to this.
    """

    task: Task
    z: Array | None
    pending: set[int]
    limit: float
    fields: Fields = field(default_factory=dict)
    total: dict[str, Any] = field(default_factory=dict)
    number: int = 1

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
        support = self.fields.get("support")
        sizes = {"2": 2, "p": p, "k": p if support is None else len(support), "t": len(self.fields.get("ts", ()))}
        for name, sides in shapes.items():
            value = np.asarray(answer[name])
            want = value.shape if sides == ("any",) else tuple(sizes[side] for side in sides)
            if value.shape != want or value.dtype != np.float64:
                return "shape"
            if self.task in HONEST:
                continue
            finite = self.task is Task.SURVEY or (self.task is Task.VERIFY and name != "f")
            if np.isnan(value).any() or np.isneginf(value).any() or (finite and np.isinf(value).any()):
                return "finite"
        return None
