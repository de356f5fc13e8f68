"""What the command line's options make of the model."""

from __future__ import annotations

import argparse

import pytest

import paramserver as ps
from paramserver.cli import model
from paramserver.errors import InvalidInput


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    model.add(parser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("", ps.Logistic()),
        ("--problem least_squares --no-intercept", ps.LeastSquares(fit_intercept=False)),
        ("--problem poisson --standardize", ps.Poisson(standardize=True)),
        ("--problem gamma", ps.Gamma()),
        ("--problem tweedie --power 1.2", ps.Tweedie(1.2)),
        ("--problem huber --delta 3", ps.Huber(3.0)),
        ("--problem quantile --quantile 0.9 --smoothing 0.1", ps.Quantile(0.9, smoothing=0.1)),
        ("--problem squared_hinge", ps.SquaredHinge()),
        ("--problem multinomial", ps.Multinomial()),
    ],
)
def test_problem(words, problem):
    assert model.problem(parsed(*words.split())) == problem
    assert repr(model.problem(parsed(*words.split()))) == repr(problem)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--problem poisson --delta 3", "--delta is of huber"),
        ("--problem quantile", "needs --smoothing"),
        ("--problem tweedie --power 3", "power"),
        ("--problem huber --delta -1", "delta"),
    ],
)
def test_settings_that_do_not_fit(words, match):
    with pytest.raises(InvalidInput, match=match):
        model.problem(parsed(*words.split()))


@pytest.mark.parametrize(
    ("words", "penalty"),
    [
        ("", ps.L2(1.0)),
        ("--penalty l1 --alpha 3", ps.L1(3.0)),
        ("--penalty elasticnet --alpha 2 --l1-ratio 0.3", ps.ElasticNet(2.0, 0.3)),
        ("--penalty none", ps.NoPenalty()),
    ],
)
def test_penalty(words, penalty):
    assert repr(model.penalty(parsed(*words.split()))) == repr(penalty)
