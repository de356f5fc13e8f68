"""Stochastic programs: what a scenario must be, how a tree is put together, and the program that a chunk is."""

from __future__ import annotations

import sys
from dataclasses import fields

import numpy as np
import pytest
from scipy.sparse import csc_array

import paramserver as ps
from paramserver.errors import BadData, InvalidInput
from paramserver.examples import extensive_form, farmer, inventory
from paramserver.testing import check_problem
from paramserver.workers.problems.stochastic import highs, interior
from paramserver.workers.problems.stochastic.program import Program
from paramserver.workers.problems.stochastic.tree import Tree

GOOD = {"c": [1.0, 2.0, 3.0], "A": np.eye(3), "probability": 0.5, "nodes": {"root": [0, 1]}, "name": "wet"}


def solve(scenarios, **options):
    return ps.simulate(ps.StochasticProgram(), scenarios, consensus="progressive_hedging", **options).result


# -- a scenario ------------------------------------------------------------------------------------


def test_what_is_left_out():
    s = ps.Scenario(c=[1, 2], probability=1, nodes={0: [1]})
    assert s.A.shape == (0, 2)
    assert s.name == "0"
    np.testing.assert_array_equal(s.lower, [0, 0])
    np.testing.assert_array_equal(s.upper, [np.inf, np.inf])
    same = ps.Scenario(c=[1.0, 2.0], A=csc_array([[1.0, 1.0]]), Q=[0, 3], row_upper=4, probability=1, nodes={0: [1]})
    np.testing.assert_array_equal(same.Q.toarray(), [[0, 0], [0, 3]])
    np.testing.assert_array_equal(same.row_lower, [-np.inf])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"c": "costs"}, "c must be numbers, got str"),
        ({"c": [[1.0]]}, r"c must have shape \(n,\), got \(1, 1\)"),
        ({"c": [1.0, np.nan, 2.0]}, "c must be finite, and is not at 1"),
        ({"A": np.eye(2)}, r"A must have shape \(m, 3\) as c has, got \(2, 2\)"),
        ({"A": np.full((1, 3), np.inf)}, "A must be finite"),
        ({"row_lower": [0.0, 1.0]}, r"row_lower must have shape \(3,\), got \(2,\)"),
        ({"upper": [1.0, np.nan, 1.0]}, "upper must be numbers, and is not at 1"),
        ({"lower": [0.0, 2.0, 0.0], "upper": 1.0}, r"lower\[1\] = 2 is above upper\[1\] = 1"),
        ({"row_lower": 2.0, "row_upper": 1.0}, r"row_lower\[0\] = 2 is above row_upper\[0\] = 1"),
        ({"Q": np.eye(2)}, r"Q must have shape \(3, 3\)"),
        ({"Q": np.triu(np.ones((3, 3)))}, "Q must be symmetric"),
        ({"Q": [1.0, -1.0, 0.0]}, "Q must be positive semidefinite"),
        ({"probability": 0}, r"probability must be a number in \(0, 1\], got 0"),
        ({"probability": "half"}, "probability must be"),
        ({"nodes": {}}, "nodes must be a dict"),
        ({"nodes": [0, 1]}, "nodes must be a dict"),
        ({"nodes": {"root": [0, 3]}}, "node 'root' must name columns of 0 to 2"),
        ({"nodes": {"root": [0], "next": [0]}}, "node 'next' must name columns of 0 to 2, each once"),
        ({"nodes": {"root": [0.5]}}, "node 'root' must name columns"),
        ({"nodes": {(1, 2): [0]}}, "a node is named by text or a whole number"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said_when_it_is_made(wrong, words):
    with pytest.raises(InvalidInput, match=f"scenario '[^']*': {words}"):
        ps.Scenario(**{**GOOD, **wrong})


# -- a tree ----------------------------------------------------------------------------------------


def test_a_tree_is_the_same_whoever_adds_it_up():
    trees = [Tree.of(s, np.arange(12.0) + i, float(i)) for i, s in enumerate(inventory.scenarios())]
    forth, back = Tree.union(trees), Tree.union(trees[::-1])
    np.testing.assert_allclose(forth.packed()[:4], back.packed()[:4], rtol=1e-12)
    again = Tree.read(Tree.union([Tree.union(trees[:3]), Tree.union(trees[3:])]).packed())
    leaves = [f"root/{a}/{b}" for a in "01" for b in "01"]
    assert [*again.nodes] == [*forth.nodes] == ["root", "root/0", "root/1", *leaves]
    assert again.where["root/1"] == slice(4, 6)
    assert again.p == 14
    np.testing.assert_allclose(again.mean(back), forth.mean(forth), rtol=1e-12)
    leaf = again.nodes["root/0/1"]
    np.testing.assert_allclose(again.mean(again)[again.where["root/0/1"]], leaf.x / leaf.weight)


def altered(scenario, **changes):
    kept = {name: getattr(scenario, name) for name in ("c", "A", "row_lower", "row_upper", "lower", "upper", "Q")}
    kept |= {"probability": scenario.probability, "nodes": scenario.nodes, "name": scenario.name}
    return ps.Scenario(**{**kept, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probability": 0.5}, "probabilities of the 3 scenarios sum to 1.16666667, must be 1"),
        ({"nodes": {"acres": [0, 1]}}, "columns of node 'acres' is 3 in scenario 'year 0' and 2 in 'year 2'"),
        ({"nodes": {"first": [3], "acres": [0, 1, 2]}}, r"stage of node 'acres' \(.*\) is 0 in scenario 'year 0'"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)  # fmt: skip
def test_scenarios_that_do_not_fit_together(changes, words):
    years = farmer.scenarios()
    years[2] = altered(years[2], **changes)
    with pytest.raises(InvalidInput, match=words):  # a list is looked at before anything is sent
        solve(years)
    with pytest.raises(BadData, match=words):
        solve(np.array(years, dtype=object))


def test_a_node_has_one_node_before_it():
    tree = inventory.scenarios()
    columns = list(tree[-1].nodes.values())
    tree[-1] = altered(tree[-1], nodes=dict(zip(["root", "root/0", "root/1/1"], columns, strict=True)))
    with pytest.raises(InvalidInput, match="the node before node 'root/1/1' is 'root/1' in scenario 'demands 110' and"):
        solve(tree)


# -- a chunk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenarios", [farmer.scenarios(5), inventory.scenarios()], ids=["two stages", "three"])
def test_all_scenarios_in_one_chunk_are_the_extensive_form(scenarios):
    exact, problem = extensive_form.solve(scenarios), ps.StochasticProgram()
    data = problem.prepare(scenarios)
    bound = problem.at(problem.survey(data))
    z = np.concatenate([exact.decisions[node] for node in bound.unpack(np.zeros(bound.tree.p))[0]])
    x, cost = bound.prox(data, z, 1e-3)
    np.testing.assert_allclose(x, z, atol=1e-5)
    assert cost == pytest.approx(exact.cost, rel=1e-7)


@pytest.mark.parametrize("scenarios", [farmer.scenarios(6), inventory.scenarios()], ids=["two stages", "three"])
def test_it_keeps_its_contract(scenarios):
    check_problem(ps.StochasticProgram(), scenarios)


def test_a_curved_scenario():
    """min ½xᵀQx − x₀ with x₀ + x₁ = 1, near a centre: by hand from the conditions of optimality."""
    Q = np.array([[2.0, 0.5], [0.5, 1.0]])
    one = ps.Scenario(
        c=[-1, 0], A=[[1, 1]], row_lower=1, row_upper=1, Q=Q, lower=-np.inf, probability=1, nodes={"a": [0]}
    )
    problem = ps.StochasticProgram()
    data = problem.prepare(one)
    bound = problem.at(problem.survey(data))
    x, value = bound.prox(data, np.array([3.0]), 4.0)
    kkt = np.array([[2.0 + 4.0, 0.5, 1.0], [0.5, 1.0, 1.0], [1.0, 1.0, 0.0]])
    best = np.linalg.solve(kkt, [1.0 + 4.0 * 3.0, 0.0, 1.0])[:2]
    np.testing.assert_allclose(x, best[:1], atol=1e-7)
    assert value == pytest.approx(0.5 * best @ Q @ best - best[0], abs=1e-6)


def random_program(seed, n=12, m=7):
    """Equations, inequalities of one side and both, rows without; free, boxed and fixed columns; Q of low rank."""
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((m, n)), rng.random(n)
    slack, root = rng.random((2, m)), rng.standard_normal((2, n))
    low, high = A @ x - slack[0] * [0, 0, 1, 1, 1, 0, 1], A @ x + slack[1] * [0, 0, 1, 1, 1, 0, 1]
    low[3], high[4], low[6], high[6] = -np.inf, np.inf, -np.inf, np.inf
    lower, upper = np.zeros(n), np.full(n, np.inf)
    lower[0], lower[1], upper[1], lower[2], upper[2] = -np.inf, x[1], x[1], -1.0, 2.0
    return ps.Scenario(
        c=rng.standard_normal(n) + 2.0, A=A, row_lower=low, row_upper=high, lower=lower, upper=upper, Q=root.T @ root,
        probability=1, nodes={"root": [0, 1, 2, 3]},
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_the_interior_point_method_agrees_with_highs(seed):
    data = Program([random_program(seed)])
    bend = np.zeros(12)
    bend[:4] = 2.0
    c = data.form.c - bend * np.arange(12)
    H = data.form.Q + np.diag(bend)
    x, y = interior.minimise(data.form, c, csc_array(H)), highs.Model(data.form).solve(data, c, bend)
    assert data.form.lower[1] == x[1] == data.form.upper[1]
    np.testing.assert_allclose(x[:4], y[:4], atol=1e-5)
    assert c @ x + 0.5 * x @ H @ x == pytest.approx(c @ y + 0.5 * y @ H @ y, rel=1e-7)


def test_the_interior_point_method_without_a_linear_term():
    form = Program([replace_costs(random_program(0))]).form
    x = interior.minimise(form, np.zeros(12), csc_array(np.diag(np.arange(1.0, 13.0))))
    y = highs.Model(form._replace(Q=None)).solve("a program", np.zeros(12), np.arange(1.0, 13.0))
    np.testing.assert_allclose(x, y, atol=1e-5)


def replace_costs(one):
    what = {f.name: getattr(one, f.name) for f in fields(ps.Scenario) if f.init}
    return ps.Scenario(**{**what, "c": np.zeros(len(one.c))})


@pytest.mark.parametrize("what", ["LARGE", "PATIENCE"])
def test_it_takes_over_where_a_program_is_large_or_highs_does_not_end(what, monkeypatch):
    asked = []
    monkeypatch.setattr(highs, what, 0)
    monkeypatch.setattr(highs, "minimise", lambda *args: asked.append(1) or interior.minimise(*args))
    result = solve(farmer.scenarios(), tol=1e-2)
    assert result.objective == pytest.approx(-108_390, rel=1e-3)
    assert len(asked) >= result.n_pushes - 3  # all but the first, which are linear


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"row_lower": [501, 200, 240, -np.inf], "row_upper": [np.inf, np.inf, np.inf, 0], "upper": 10}, "infeasible"),
        ({"c": np.full(9, -1.0), "row_upper": np.inf}, "unbounded"),
    ],
)  # fmt: skip
def test_a_scenario_that_cannot_be_solved_is_named(changes, words):
    years = farmer.scenarios()
    years[1] = altered(years[1], **changes)
    with pytest.raises(BadData, match=f"scenario 'year 1': {words}"):
        solve(years)


def test_scenarios_that_cannot_agree():
    years = [altered(year, lower=[low] + [0.0] * 8, upper=[low + 5] + [np.inf] * 8)
             for year, low in zip(farmer.scenarios(), (0.0, 10.0, 20.0), strict=True)]  # fmt: skip
    with pytest.raises(BadData, match="scenarios 'year 0', 'year 1', 'year 2' together: no decision is within"):
        Program(years)


def test_a_bundle_may_be_a_tuple():
    years = farmer.scenarios()
    chunks = [tuple(years[:2]), tuple(years[2:])]
    result = ps.simulate(ps.StochasticProgram(), chunks, consensus="progressive_hedging", tol=1e-4).result
    assert (result.n_chunks, result.n_rows) == (2, 3)
    assert result.objective == pytest.approx(-108_390, rel=1e-4)


def test_what_is_no_chunk():
    problem = ps.StochasticProgram()
    with pytest.raises(BadData, match="pass no y"):
        problem.prepare(farmer.scenarios()[0], np.ones(3))
    with pytest.raises(BadData, match=r"must|is a paramserver.Scenario, or several, got array"):
        problem.prepare([np.ones(3)])
    with pytest.raises(BadData, match="without scenarios"):
        problem.prepare([])


def test_without_its_solver(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(InvalidInput, match=r'pip install "paramserver\[stochastic\]"'):
        solve(farmer.scenarios())


# -- the examples ----------------------------------------------------------------------------------


def test_the_examples_agree_with_themselves(capsys):
    farmer.main()
    inventory.main()
    lines = capsys.readouterr().out.splitlines()
    costs = [float(line.split("cost")[1].split()[0]) for line in lines if "cost" in line]
    assert len(costs) == 6
    np.testing.assert_allclose(costs[:3], -108_390, rtol=1e-4)
    np.testing.assert_allclose(costs[3:], costs[3], rtol=1e-4)
