"""Rules by name: ours, and those that other packages bring."""

from __future__ import annotations

import pytest
from by_hand import logistic

from paramserver.cli import main
from paramserver.consensus import RULES, AggregatedNewton, Consensus, FedAvg, named, names, of_class
from paramserver.errors import InvalidInput
from paramserver.resumption import Earlier
from paramserver.simulator import simulate
from paramserver.workers.problems import Logistic

SOURCE = """
from dataclasses import dataclass
from paramserver.consensus import AggregatedNewton

@dataclass(frozen=True, kw_only=True)
class Theirs(AggregatedNewton):
    patience: int = 3

NO_RULE = 7
"""
POINTS = """[paramserver.consensus]
theirs = their_rules:Theirs
newton = their_rules:Theirs
broken = their_rules_that_are_not_there:Rule
no_rule = their_rules:NO_RULE
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Another package, as an installer leaves it."""
    (tmp_path / "their_rules.py").write_text(SOURCE)
    info = tmp_path / "their_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_every_name_makes_a_rule():
    assert set(RULES) == {
        "auto", "newton", "active", "lbfgs", "admm", "prox_gradient", "sgd", "easgd", "fedavg",
        "progressive_hedging", "aph",
    }  # fmt: skip
    for name, rule in RULES.items():
        assert type(named(name)) is rule
        assert of_class(rule.__qualname__) is rule


def test_an_object_is_a_rule_as_it_is():
    rule = FedAvg(local_steps=3)
    assert named(rule) is rule


@pytest.mark.parametrize("what", ["newtn", 3, None, FedAvg])
def test_what_is_no_rule_is_told_which_there_are(what):
    with pytest.raises(InvalidInput, match="'admm', 'aph', 'auto', 'easgd', 'fedavg', 'lbfgs', 'newton'"):
        named(what)


@pytest.mark.usefixtures("installed")
def test_another_packages_rule_is_found_by_name():
    rule = named("theirs")
    assert isinstance(rule, Consensus)
    assert type(rule).__qualname__ == "Theirs"
    assert "theirs" in names()
    X, y = logistic(400)
    result = simulate(Logistic(), X, y, chunks=4, consensus="theirs").result
    assert result.converged
    assert result.consensus.startswith("Theirs(")


@pytest.mark.usefixtures("installed")
def test_ours_come_first():
    assert type(named("newton")) is AggregatedNewton


@pytest.mark.usefixtures("installed")
def test_what_cannot_be_used_says_why():
    with pytest.raises(InvalidInput, match=r"'broken' .*cannot be imported.*their_rules_that_are_not_there"):
        named("broken")
    with pytest.raises(InvalidInput, match="must name a class of Consensus, not 7"):
        named("no_rule")
    with pytest.raises(InvalidInput, match="'theirs'"):
        named("newtn")


@pytest.mark.usefixtures("installed")
def test_a_checkpoint_names_it():
    kept = {"rule": {"type": "Theirs", "settings": {"min_fresh": 2, "max_staleness": None, "patience": 5}}}
    rule = Earlier("somewhere", "000001-000001", kept).consensus()
    assert (rule.min_fresh, rule.patience) == (2, 5)
    with pytest.raises(InvalidInput, match="pass it as consensus="):
        Earlier("somewhere", "000001-000001", {"rule": {"type": "Nobodys", "settings": {}}}).consensus()


def test_the_command_line_names_all_of_ours(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in RULES)


def test_the_command_line_lists_them_before_it_reads_anything(capsys):
    assert main(["fit", "there/is/no/such.parquet", "--target", "y", "--consensus", "newtn"]) == 2
    assert "newton, progressive_hedging, prox_gradient, sgd" in capsys.readouterr().err


def test_floors_are_of_rules_that_are_not_exact():
    for name in sorted(RULES.keys() - {"auto"}):
        assert named(name).exact == (name not in ("sgd", "easgd", "fedavg")), name
