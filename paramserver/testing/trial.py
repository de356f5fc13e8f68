"""One rule on a few chunks, driven by hand: both halves, and the form of what each returns."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup, check
from paramserver.messages import Array, Fields, Version
from paramserver.penalties import Bound, Penalty
from paramserver.testing.laws import frozen, law, travelled
from paramserver.testing.problems import null_model
from paramserver.workers.problems import Problem


class Trial:
    """One rule on a few chunks, driven by hand."""

    def __init__(self, rule: Consensus, problem: Problem, parts: Sequence[Any], penalty: Penalty) -> None:
        self.rule, self.prepare = rule, [partial(problem.prepare, *each) for each in parts]
        self.data = [prepare() for prepare in self.prepare]
        total = reduce(problem.merge, map(problem.survey, self.data))
        self.problem = problem.at(total)
        self.shared = callable(getattr(problem, "knows", None))  # a run starts from what each chunk would have alone
        start = null_model(self.problem, self.problem.start(total), self.data)
        self.bound = Bound(penalty, self.problem.penalised(len(start.z)))
        rule.suits(self.bound)
        z, rows = self.bound.project(start.z), int(total[0])
        self.setup = Setup(len(z), len(parts), rows, start, self.problem.quadratic, self.bound, z)

    def pull(self, state: Any, slot: Fields | None, z: Array, whole: bool = False) -> Pull:
        fields = frozen(dict(self.rule.plan(state, frozen(slot), frozen(z))))
        return Pull(frozen(z), Version(0, 0), fields, whole or slot is None)

    def copies(self, i: int) -> Iterator[Any]:
        """A chunk's data as the steps so far left them, twice, and as new."""
        yield from (copy.deepcopy(self.data[i]), copy.deepcopy(self.data[i]), self.prepare[i]())

    def answer(self, data: Any, pull: Pull) -> Fields:
        payload = travelled(self.rule).step(self.problem, data, pull)
        law(payload is not None, "a step near the null model is not too far (None)")
        law(isinstance(payload, dict), f"step returns a dict of what `payload` names, or None, got {type(payload)}")
        return payload  # type: ignore[no-any-return]

    def push(self, i: int, pull: Pull) -> Fields:
        """A worker's answer as the server gets it."""
        payload = self.answer(self.data[i], pull)
        wrong = check(payload, self.rule.shapes, self.rule.optional, self.setup.p) and self._misfit(payload)
        law(not wrong, f"step returns what `payload` says: {wrong}")
        law(not (pull.whole and self.rule.is_delta(payload)), f"a push asked for whole is whole, got {[*payload]}")
        return frozen({**travelled(payload), "rows": float(self.data[i].rows)})  # type: ignore[no-any-return]

    def _misfit(self, payload: Fields) -> str:
        """The first field that is not what the rule declares, in words."""
        shapes, p = self.rule.shapes, self.setup.p
        for name in [*shapes, *(payload.keys() - shapes.keys())]:
            if name not in shapes:
                return f"{name!r} is not declared there, only {', '.join(shapes)}"
            if name not in payload and name not in self.rule.optional:
                return f"{name!r} is missing, and not among `optional`"
            array = np.asarray(payload.get(name, 0.0))
            if name in payload and check({name: array}, {name: shapes[name]}, frozenset(), p) == "shape":
                want = f"wrong shape or dtype: float64 {shapes[name]} with p = {p} is declared"
                return f"{name!r} is of {want}, got {array.dtype} {array.shape}"
        return "it is not finite where it should be: " + ", ".join(k for k, v in payload.items() if not _finite(v))

    def begun(self) -> Any:
        """The state before any push."""
        state = self.rule.init(self.setup)
        law(is_dataclass(state) and not isinstance(state, type), f"the state is a dataclass object, got {state!r}")
        return state

    def absorb(self, state: Any, i: int, old: Fields | None, push: Fields) -> Absorbed:
        """What the server makes of a push."""
        out = self.rule.absorb(state, i, frozen(old), push)
        law(isinstance(out, Absorbed), f"absorb returns Absorbed(state, slot), got {type(out).__name__}")
        law(isinstance(out.slot, dict), f"a slot is a dict of fields, got {type(out.slot).__name__}")
        return out

    def consensus(self, state: Any, z: Array) -> tuple[Array, Any]:
        out = self.rule.consensus(state, self.bound, frozen(z))
        law(isinstance(out, tuple) and len(out) == 2, f"consensus returns (z, state), got {type(out).__name__}")
        z, state = out
        law(z.shape == (self.setup.p,) and np.isfinite(z).all(), f"consensus makes {self.setup.p} numbers, got {z!r}")
        return z, state


def _finite(value: Any) -> bool:
    return bool(np.isfinite(np.asarray(value)).all())
