"""A rule and a problem that do not fit: said before anything is done, with what the problem would have to provide."""

from __future__ import annotations

import numpy as np
import pytest

import paramserver as ps
from paramserver.consensus import RULES
from paramserver.errors import MissingMethod
from paramserver.examples.hessian_average import HessianAverage
from paramserver.workers.problems.base import CAPABILITIES, Problem, Start


class Bare(Problem):
    """Can do nothing."""

    def prepare(self, *parts):
        raise AssertionError("nothing is prepared")

    def survey(self, data):
        return np.ones(2)

    def start(self, survey):
        return Start(np.zeros(3), 1.0)


OURS = [*(RULES[name]() for name in sorted(RULES)), ps.ADMM(metric="diagonal"), ps.ADMM(metric="identity")]


@pytest.mark.parametrize("rule", [*OURS, HessianAverage()], ids=repr)
def test_it_says_what_the_problem_would_have_to_provide(rule):
    with pytest.raises(MissingMethod) as caught:
        ps.simulate(Bare(), np.ones((4, 3)), consensus=rule)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{type(rule).__name__} needs of a problem what Bare lacks; define on it"
    for name in rule.needs:
        assert f"    def {CAPABILITIES[name]}" in lines
    assert len(rule.needs) >= 1


def test_a_prox_is_enough_for_one():
    with pytest.raises(MissingMethod, match="or, in place of all this,\n    def prox"):
        ps.ADMM(metric="identity").check(Bare())
    prox = ps.Proximal(lambda v, rho, X: v, size=3)
    ps.ADMM(metric="identity").check(prox)
    with pytest.raises(MissingMethod, match=r'or fit it by ProgressiveHedging\(\) or ADMM\(metric="identity"\)'):
        HessianAverage().check(prox)
