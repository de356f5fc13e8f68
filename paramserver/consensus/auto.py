"""Which rule, where the user named none: by the shape of the fit, once that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np

from paramserver.consensus.active import ActiveNewton
from paramserver.consensus.base import Absorbed, Consensus, Pull, Setup
from paramserver.consensus.lbfgs import LBFGS
from paramserver.consensus.newton import AggregatedNewton
from paramserver.errors import RunFailed
from paramserver.messages import Array, Fields
from paramserver.penalties import Bound
from paramserver.workers.problems.base import Problem

BYTES = 10**9  #: of chunks' Hessians on the server, at most
COLUMNS = 4000  #: a dense z-step takes p³/3 operations


@dataclass(frozen=True, kw_only=True)
class Auto(Consensus):
    """No rule itself: `choose` says which, when the null model is known.

    `AggregatedNewton` where N Hessians fit 1 GB and p ≤ 4000; else `ActiveNewton` where the
    penalty has an L1 term, and `LBFGS` where it is smooth.
    """

    payload: ClassVar[Mapping[str, tuple[str | int, ...]]] = {}  # the chosen rule's
    needs = ("evaluate", "curvature", "hessian")

    def choose(self, setup: Setup, problem: Problem) -> tuple[Consensus, str]:
        """(the rule, why; "" for the usual one).

        Raises
        ------
        RunFailed
            Only `AggregatedNewton` can handle the penalty, and not this many columns.
        MissingMethod
            The problem lacks what the rule needs.
        """
        p, n = setup.p, setup.n_chunks
        takes = f"{n} chunks of p = {p} would need {_size(n * p**2 * 8)} of Hessians"
        if n * p**2 * 8 <= BYTES and p <= COLUMNS:
            return AggregatedNewton(), ""
        terms = setup.bound.separable()
        if terms is None:
            raise RunFailed(
                f"{takes}, and {setup.bound.penalty!r} is no sum over coordinates of a known form: use fewer chunks "
                'or columns, another penalty, or insist by consensus="newton"'
            )
        rule = LBFGS() if terms.smooth else ActiveNewton()
        rule.check(problem)
        rule.suits(setup.bound)
        return rule, takes

    @staticmethod
    def named(name: str) -> Consensus | None:
        """The rule of this class name, if it is one of those that are chosen from."""
        rules: dict[str, Callable[[], Consensus]] = {
            rule.__name__: rule for rule in (AggregatedNewton, ActiveNewton, LBFGS)
        }
        return rules[name]() if name in rules else None

    def init(self, setup: Setup) -> NoReturn:
        raise NotImplementedError("Auto only chooses")

    def step(self, problem: Problem, data: Any, pull: Pull) -> Fields | None:
        raise NotImplementedError("Auto only chooses")

    def absorb(self, state: Any, chunk: int, old: Fields | None, new: Fields) -> Absorbed:
        raise NotImplementedError("Auto only chooses")

    def consensus(self, state: Any, penalty: Bound, z: Array) -> tuple[Array, Any]:
        raise NotImplementedError("Auto only chooses")


def _size(n: float) -> str:
    power = min(int(np.log10(max(n, 1.0))) // 3, 4)
    return f"{n / 1000.0**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
