"""`compare` in the simulator: its table is what an independent look at the traces says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import paramserver as ps
from paramserver.comparison.comparing import _median
from paramserver.comparison.curves import Curve, Reached, curve
from paramserver.comparison.network import even, network
from paramserver.comparison.straggler import plain, slowed
from paramserver.errors import InvalidInput
from paramserver.trace import Trace

ACCURACY = (1e-2, 1e-4, 1e-6)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 4))
    return X, (X[:, 0] - X[:, 1] + rng.standard_normal(600) > 0).astype(float)


@pytest.fixture(scope="module")
def compared(data):
    rules = {"newton": "newton", "pair": ps.ADMM(metric="diagonal"), "local": "fedavg"}
    return ps.compare(
        rules, ps.Logistic(), *data, penalty=ps.L2(1.0), accuracy=ACCURACY, simulate="workers=4,slow=8x1", chunks=12,
        limit=200,
    )  # fmt: skip


def F(data, z: np.ndarray) -> float:
    X, y = data
    margins = X @ z[:-1] + z[-1]
    return float((np.logaddexp(0, margins) - y * margins).sum() + 0.5 * z[:-1] @ z[:-1])


def test_the_table_is_what_the_traces_say(data, compared) -> None:
    network = ps.Network(speeds=(1.0, 1.0, 1.0, 8.0))
    run = ps.simulate(
        ps.Logistic(), *data, chunks=12, penalty=ps.L2(1.0), consensus="newton", network=network, tol=1e-6, trace=True
    )
    tight = ps.simulate(ps.Logistic(), *data, chunks=12, penalty=ps.L2(1.0), tol=1e-12).result
    trace, null = run.result.trace, F(data, np.append(np.zeros(4), np.log(data[1].mean() / (1 - data[1].mean()))))
    gaps = (np.array([F(data, z) for z in trace.z]) - tight.objective) / null
    assert (compared.objective, compared.null) == (pytest.approx(tight.objective, rel=1e-10), pytest.approx(null))
    for accuracy in ACCURACY:
        k = int(np.flatnonzero(gaps > accuracy)[-1]) + 1
        found = compared.run("newton", slow=True).reached[accuracy]
        assert (found.time, found.pushes) == (trace.seconds[k], trace.pushes[k])
        assert found.passes == pytest.approx(trace.visits[k] / 12)


def test_values_below_zero_and_a_rule_whose_step_raises(data) -> None:
    """Gaps are over |F(null model)|; what a step raises is a row's reason."""

    class Broken(ps.AggregatedNewton):
        def step(self, problem, data, pull):
            raise ZeroDivisionError("no rows left")

    X, _ = data
    pull = ps.Smooth(
        lambda z, part: 0.5 * len(part) * float(z @ z) - float(part.sum(axis=0) @ z) - 1.0,
        lambda z, part: len(part) * z - part.sum(axis=0), lambda z, part: len(part) * np.eye(4), size=4,
    )  # fmt: skip
    rules = {"newton": "newton", 1: Broken()}
    found = ps.compare(rules, pull, X, accuracy=1e-6, simulate="workers=2", chunks=3)
    assert found.null < 0
    newton = found.run("newton")
    assert newton.reached[1e-6].pushes > 3
    assert "no rows left" in found.run("1").ended
    assert found.run("1").reached == {}
    assert "no rows left" in str(found)
    with pytest.raises(InvalidInput, match=r"no run of 'nwton'.*compared were newton, 1"):
        found.run("nwton")
    with pytest.raises(InvalidInput, match="chunks must be"):
        ps.compare(rules, pull, X, simulate="workers=2", chunks=0)


def test_times_rise_with_accuracy(compared) -> None:
    for label in ("newton", "pair"):
        for slow in (False, True):
            times = [compared.run(label, slow).reached[accuracy].time for accuracy in ACCURACY]
            assert times == sorted(times)
        assert compared.slowdown(label, 1e-6) == pytest.approx(
            compared.run(label, True).reached[1e-6].time / compared.run(label).reached[1e-6].time
        )
    local = compared.run("local")
    assert local.reached[1e-6] is None
    assert local.ended in ("stalled", "max_seconds")
    assert compared.slowdown("local", 1e-6) is None


def test_the_table_and_the_json_say_the_same(compared) -> None:
    text, plainly = str(compared), json.loads(json.dumps(compared.to_dict()))
    assert "1 of 4 workers up to 8 times slower" in text
    assert len(plainly["rows"]) == 3 * len(ACCURACY)
    row = next(row for row in plainly["rows"] if row["rule"] == "newton" and row["accuracy"] == 1e-6)
    assert f"{row['slowdown']:.2f}" in text
    assert row["pushes"] == compared.run("newton").reached[1e-6].pushes
    assert plainly["runs"][0]["curve"]["gap"][-1] <= 1e-6


def test_plots_are_pictures_with_their_panels(compared, tmp_path) -> None:
    from paramserver.comparison import plots
    from paramserver.comparison.canvas import canvas

    files = compared.plot(tmp_path / "plots")
    assert [file.name for file in files] == ["gap.png", "residuals.png", "tasks.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and file.stat().st_size < 200_000 for file in files)
    plt = canvas()
    figure = plots._tasks(plt, compared, compared.runs)
    assert len(figure.axes) == len(compared.runs)
    assert [len(axis.collections) >= 4 for axis in figure.axes] == [True] * len(compared.runs)
    gaps = plots._gaps(plt, compared, compared.runs, dict.fromkeys(compared.labels, "C0"))
    assert [axis.get_xlabel() for axis in gaps.axes] == ["virtual time, passes over a chunk", "pushes"]
    assert [axis.get_yscale() for axis in gaps.axes] == ["log", "log"]
    plt.close("all")


def test_a_rule_that_does_not_suit_is_a_row_with_its_reason(data) -> None:
    penalty = ps.GroupL1(2, 1.0)
    found = ps.compare(
        ["newton", "fedavg"], ps.Logistic(), *data, penalty=penalty, accuracy=1e-4, simulate={"workers": 3}, chunks=6
    )
    assert found.run("newton").reached[1e-4] is not None
    assert found.run("fedavg").curve is None
    assert "FedAvg takes local steps on the penalty too" in str(found)


def test_two_rules_of_a_class_have_two_labels(data) -> None:
    rules = [ps.ADMM(rho=0.3), ps.ADMM(rho=1.0)]
    found = ps.compare(rules, ps.Logistic(), *data, accuracy=1e-2, simulate={"workers": 2}, chunks=4)
    assert found.labels == ["ADMM", "ADMM #2"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rules": ["nwton"]}, "consensus must be one of"),
        ({"rules": []}, "rules is empty"),
        ({"accuracy": "1e-4"}, "accuracy must be relative gaps"),
        ({"accuracy": 2.0}, "accuracy must be relative gaps"),
        ({"straggler": -1}, "straggler must be"),
        ({"straggler": 5}, "leave straggler= out"),
        ({"limit": 0}, "limit must be"),
        ({"repeats": 0}, "repeats must be"),
        ({"simulate": "workers=4,slw=8x1"}, "simulate takes workers=64.*got 'slw'"),
        ({"simulate": "workers"}, "simulate takes workers=64"),
        ({"simulate": "workers=4,slow=8"}, "as in 8x1"),
        ({"simulate": "workers=4,slow=8x4"}, "leaves none of 4 workers"),
        ({"simulate": "workers=four"}, "workers must be a number"),
        ({"simulate": {"workers": 2.5}}, "workers must be a whole number"),
        ({"simulate": {"slow": (0.5, 1)}}, "at least 1 time slower"),
    ],
)
def test_bad_input(data, options, match) -> None:
    options = {"rules": ["newton"], "simulate": "workers=4", **options}
    with pytest.raises(InvalidInput, match=match):
        ps.compare(options.pop("rules"), ps.Logistic(), *data, **options)


def test_a_problem_without_values_cannot_be_compared(data) -> None:
    problem = ps.Proximal(lambda v, rho, X, y: v, size=4)
    with pytest.raises(InvalidInput, match="compare needs of a problem what Proximal lacks"):
        ps.compare(["admm"], problem, *data, simulate={})


def test_networks() -> None:
    net = network("workers=64, slow=8x1, latency=0.5")
    assert (net.speeds, net.latency) == ((1.0,) * 63 + (8.0,), 0.5)
    assert even(net).speeds == (1.0,) * 64
    assert network({"workers": 3, "slow": (2, 1)}).speeds == (1.0, 1.0, 2.0)
    assert network(net) is net


def test_the_version_from_which_on_a_gap_stays_is_found_between_those_evaluated() -> None:
    """Thousands of versions, a gap that rises once more on its way, and few evaluations."""
    gap = np.geomspace(1, 1e-9, 3001)
    gap[1200:1300] = 0.5
    z, count, asked = gap[:, None], np.arange(3001.0), []

    def gaps(zs):
        asked.extend(zs)
        return np.array([float(z[0]) for z in zs])

    made = curve(Trace(z, 2 * count, count, 3 * count, np.empty((0, 5)), ()), 3, 0.0, [1e-2, 1e-6], gaps)
    for accuracy in (1e-2, 1e-6):
        k = int(np.flatnonzero(gap > accuracy)[-1]) + 1
        assert made.reached(accuracy) == Reached(2.0 * k, float(k), float(k))
    assert len(asked) < 80


def test_reached() -> None:
    none = Curve(*(np.arange(3.0) for _ in range(3)), np.array([1.0, 0.1, np.nan]))
    assert none.reached(0.5) is None
    assert _median([None, Reached(1, 2, 3), Reached(3, 2, 1)]) == Reached(3, 2, 3)
    assert _median([None, None, Reached(1, 1, 1)]) is None


def test_a_slowed_problem_is_the_same_problem(data) -> None:
    import cloudpickle

    there = cloudpickle.loads(cloudpickle.dumps(slowed(ps.Logistic(standardize=True), 5.0, "tcp://there")))
    assert isinstance(there, ps.Logistic)
    chunk = there.prepare(*data)
    bound = there.at(there.survey(chunk))
    assert bound.straggler == (5.0, "tcp://there")
    same = ps.Logistic(standardize=True)
    same = same.at(same.survey(chunk))
    z = np.linspace(-1, 1, 5)
    assert bound.evaluate(chunk, z).value == same.evaluate(chunk, z).value
    assert type(plain(bound)) is ps.Logistic
