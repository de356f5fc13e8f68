"""The consensus step against solvers that know nothing of it: coordinate descent and the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from paramserver.penalties import L1, L2, Bound, Box, ElasticNet, GroupL1, NonNegative, NoPenalty, Penalty
from paramserver.quadratic import Factor, minimise, scale_of
from paramserver.quadratic.accelerated import accelerated
from paramserver.quadratic.active_set import active_set


def bound(penalty: Penalty, d: int, intercept: bool = False) -> Bound:
    mask = np.ones(d, bool)
    mask[-1] = not intercept
    return Bound(penalty, mask)


def objective(B, c, R: Bound, ref, w) -> float:
    """In long double: differences of objectives are what the tests look at."""
    t = (w - ref).astype(np.longdouble)
    B = np.diag(B) if B.ndim == 1 else B
    return 0.5 * t @ (B.astype(np.longdouble) @ t) - c.astype(np.longdouble) @ t + R.value(w)


def coordinate_descent(B, c, R: Bound, ref, sweeps=3000):
    """Slow and plain; converges for every convex quadratic with a separable R."""
    w, slope, curvature = ref.copy(), -c.copy(), np.diag(B)
    for _ in range(sweeps):
        furthest = 0.0
        for j in np.flatnonzero(curvature > 0):
            one = np.array([w[j] - slope[j] / curvature[j]])
            new = R.penalty.prox(one, np.array([1 / curvature[j]]))[0] if R.mask[j] else one[0]
            move = new - w[j]
            if move:
                w[j], slope = new, slope + B[:, j] * move
                furthest = max(furthest, abs(move) * np.sqrt(curvature[j]))
        if furthest <= 1e-15 * np.sqrt(abs(w @ (B @ w))):
            break
    return w


def distance_from_optimal(B, c, R: Bound, ref, w, start=0.0) -> float:
    """The optimality condition's residual, each coordinate relative to the forces that cancel in it."""
    slope = B @ (w - ref) - c
    subgradient = R.subgradient(w, -slope)
    forces = np.abs(B) @ (np.abs(w) + np.abs(ref) + np.abs(start)) + np.abs(c) + np.abs(subgradient) + 1e-300
    return float((np.abs(slope + subgradient) / forces).max())


def problem(seed: int, d: int, rank: int, scaled: bool, rows: int = 0):
    rng = np.random.default_rng(seed)
    n = rows or 3 * d + 2
    A = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) if rank < d else rng.standard_normal((n, d))
    if scaled:
        A = A * 10.0 ** rng.choice([-6, 0, 6], d)
    B = A.T @ (A * rng.uniform(0.1, 1, n)[:, None])
    truth = rng.standard_normal(d) * (rng.random(d) < 0.6) * scale_of(B)
    c = A.T @ (A @ truth * 1.0 + 0.1 * rng.standard_normal(n))
    return B, c, rng


PENALTIES = {
    "none": lambda force: NoPenalty(),
    "l2": lambda force: L2(0.3),
    "l1": lambda force: L1(0.1 * force),
    "l1 strong": lambda force: L1(0.7 * force),
    "elastic net": lambda force: ElasticNet(0.2 * force, 0.5),
}


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize(("d", "rank"), [(1, 1), (2, 2), (7, 7), (7, 4), (30, 30), (30, 12), (60, 60)])
def test_beats_coordinate_descent(d, rank, kind, intercept):
    B, c, rng = problem(d + rank, d, rank, scaled=False)
    R = bound(PENALTIES[kind](np.abs(c).max()), d, intercept)
    ref, warm = rng.standard_normal(d), rng.standard_normal(d)
    c = c - B @ ref
    w = minimise(B, c, R, ref, ref)
    assert distance_from_optimal(B, c, R, ref, w) < 1e-12
    slow = coordinate_descent(B, c, R, ref, sweeps=300)
    here, there = objective(B, c, R, ref, w), objective(B, c, R, ref, slow)
    scale = abs(objective(B, c, R, ref, ref) - there) + abs(there)
    assert here <= there + 1e-14 * scale
    assert np.isclose(
        float(here), float(objective(B, c, R, ref, minimise(B, c, R, ref, warm))), rtol=0, atol=1e-12 * scale
    )


def test_coordinate_descent_agrees_where_the_minimiser_is_unique():
    B, c, _ = problem(5, 12, 12, scaled=False)
    for kind in PENALTIES:
        R = bound(PENALTIES[kind](np.abs(c).max()), 12, intercept=True)
        np.testing.assert_allclose(
            minimise(B, c, R, np.zeros(12), np.zeros(12)),
            coordinate_descent(B, c, R, np.zeros(12)),
            rtol=1e-9,
            atol=1e-11,
        )


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("seed", range(12))
def test_columns_scaled_by_a_million(seed, kind):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 61))
    B, c, _ = problem(seed, d, d if seed % 3 else max(1, d // 2), scaled=True)
    R = bound(PENALTIES[kind](float(np.median(np.abs(c)))), d, intercept=seed % 2 == 0)
    w = minimise(B, c, R, np.zeros(d), np.zeros(d))
    assert distance_from_optimal(B, c, R, np.zeros(d), w) < 1e-10


@pytest.mark.parametrize("kind", PENALTIES)
def test_scaling_the_columns_scales_the_solution(kind):
    """R travels with the columns: alpha_j/s_j on w_j·s_j is the same problem."""
    B, c, rng = problem(3, 10, 10, scaled=False)
    s = 10.0 ** rng.choice([-6, 0, 6], 10)
    force = np.abs(c).max()
    plain = PENALTIES[kind](force)
    terms = plain.terms(10)

    class Travelling(Bound):
        def terms(self):
            return terms._replace(l1=terms.l1 * s, l2=terms.l2 * s * s)

    here = minimise(B, c, bound(plain, 10), np.zeros(10), np.zeros(10))
    there = minimise(B * np.outer(s, s), c * s, Travelling(plain, np.ones(10, bool)), np.zeros(10), np.zeros(10))
    np.testing.assert_allclose(there * s, here, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize("intercept", [False, True])
def test_diagonal_metric(kind, intercept):
    rng = np.random.default_rng(2)
    B = rng.uniform(0.1, 10, 9)
    c, ref = rng.standard_normal(9) * 5, rng.standard_normal(9)
    R = bound(PENALTIES[kind](1.0), 9, intercept)
    np.testing.assert_allclose(
        minimise(B, c, R, ref, ref), minimise(np.diag(B), c, R, ref, np.zeros(9)), rtol=1e-9, atol=1e-12
    )
    B[3] = 0.0  # nothing is known of this coordinate: it stays
    assert minimise(B, c, R, ref, np.arange(9.0))[3] == 3.0


def test_elementwise_prox_is_wrong():
    """facts/algorithms.md: the prox of B⁻¹c taken coordinate by coordinate has even the sign wrong."""
    B = np.array([[1.0, 0.9], [0.9, 1.0]])
    R = bound(L1(1.0), 2)
    c = B @ np.array([-1.24, 3.0])
    elementwise = R.prox(np.linalg.solve(B, c), 1 / np.diag(B))
    w = minimise(B, c, R, np.zeros(2), np.zeros(2))
    np.testing.assert_allclose(w, coordinate_descent(B, c, R, np.zeros(2)), atol=1e-12)
    assert elementwise[0] < -0.2
    assert w[0] >= 0
    assert objective(B, c, R, np.zeros(2), w) < objective(B, c, R, np.zeros(2), elementwise) - 0.1


class Unnamed(Penalty):
    """An elastic net that is known by its prox alone."""

    def __init__(self, inner: ElasticNet) -> None:
        self.inner = inner

    def value(self, w):
        return self.inner.value(w)

    def prox(self, v, steps):
        return self.inner.prox(v, steps)

    def subgradient(self, w, near):
        return self.inner.subgradient(w, near)


@pytest.mark.parametrize("kind", PENALTIES)
@pytest.mark.parametrize(("d", "scaled"), [(1, False), (5, False), (5, True), (40, False)])
def test_custom_penalty_agrees_with_the_elastic_net(kind, d, scaled):
    B, c, _ = problem(d, d, d, scaled)
    named = bound(PENALTIES[kind](float(np.median(np.abs(c)))), d, intercept=d > 1)
    unnamed = Bound(Unnamed(named.penalty), named.mask)
    start = np.zeros(d)
    a, b = minimise(B, c, named, start, start), minimise(B, c, unnamed, start, start)
    scale = scale_of(B)
    np.testing.assert_allclose(b / scale, a / scale, atol=1e-8 * np.abs(a / scale).max())
    warm = accelerated(B, B @ a - c, unnamed, a)  # from the solution it does not move away
    np.testing.assert_allclose(warm / scale, a / scale, atol=1e-9 * np.abs(a / scale).max())


def test_where_nothing_decides_the_start_does():
    B, c = np.diag([1.0, 0.0]), np.array([2.0, 0.0])
    for start in (np.zeros(2), np.array([5.0, 7.0])):
        np.testing.assert_allclose(
            minimise(B, c, bound(NoPenalty(), 2), np.zeros(2), start), [2.0, start[1]], atol=1e-8
        )
    tied = np.ones((2, 2))  # w1 + w2 = 3: the nearest such point to the start
    w = minimise(tied, np.array([3.0, 3.0]), bound(NoPenalty(), 2), np.zeros(2), np.array([0.0, 1.0]))
    np.testing.assert_allclose(w, [1.0, 2.0], atol=1e-6)


def test_offset_costs_no_digits():
    """c about a reference: an offset of 1e9 in z leaves the step's relative error where it was."""
    B, c, _ = problem(1, 6, 6, scaled=False)
    near = minimise(B, c, bound(NoPenalty(), 6), np.zeros(6), np.zeros(6))
    ref = np.full(6, 1.5e9)
    far = minimise(B, c, bound(NoPenalty(), 6), ref, ref)
    np.testing.assert_allclose(far - ref, near, atol=1e-6)


def test_zero_solution_and_zero_problem():
    B, c, rng = problem(4, 8, 8, scaled=False)
    R = bound(L1(1.01 * np.abs(c).max()), 8)
    assert not minimise(B, c, R, np.zeros(8), rng.standard_normal(8)).any()
    assert not minimise(np.zeros((3, 3)), np.zeros(3), bound(L1(1.0), 3), np.zeros(3), np.zeros(3)).any()


@pytest.mark.parametrize("seed", range(5))
def test_active_set_survives_what_rounding_left_of_a_matrix(seed):
    """A running sum from which large terms were taken is indefinite by more than the ridge."""
    rng = np.random.default_rng(seed)
    d = 25
    A = rng.standard_normal((6, d)) * 10.0 ** rng.uniform(-4, 1, d)
    B = A.T @ A
    scale = scale_of(B)
    B = B * np.outer(scale, scale)
    noise = 1e-8 * rng.standard_normal((d, d))
    B = B + noise + noise.T
    w = active_set(B, rng.standard_normal(d), L1(1e-3).terms(d), np.zeros(d))
    assert np.isfinite(w).all()


def test_factor_refines():
    B, _, rng = problem(9, 20, 20, scaled=True)
    x = rng.standard_normal(20) * scale_of(B)
    np.testing.assert_allclose(Factor(B).solve(B @ x) / scale_of(B), x / scale_of(B), rtol=1e-9, atol=1e-10)


# -- bounds, factors and groups ------------------------------------------------------------------


def _factors(rng, n):
    return rng.choice([0.0, 0.1, 1.0, 10.0], n)


def _box(rng, d, scale, *net):
    """Bounds about points that need not be 0; some equal, some infinite."""
    middle, reach = rng.standard_normal(d) * scale, scale * rng.choice([0.0, 0.3, 3.0], (2, d))
    reach[rng.random((2, d)) < 0.3] = np.inf
    return Box(middle - reach[0], middle + reach[1], *net)


def _groups(rng, d, force):
    cut = np.sort(rng.choice(d + 1, min(d, 4), replace=False))
    groups = [list(part) for part in np.split(rng.permutation(d), cut)[1:] if len(part)]  # the first part is free
    return GroupL1(groups or [[0]], 0.3 * force, _factors(rng, len(groups or [0])) if rng.random() < 0.5 else None)


FORMS = {
    "l1, factors": lambda rng, d, force, scale: L1(0.1 * force, _factors(rng, d)),
    "l2, factors": lambda rng, d, force, scale: L2(0.3, _factors(rng, d)),
    "elastic net, factors": lambda rng, d, force, scale: ElasticNet(0.2 * force, 0.5, _factors(rng, d)),
    "box": lambda rng, d, force, scale: _box(rng, d, scale),
    "box, l1": lambda rng, d, force, scale: _box(rng, d, scale, 0.2 * force, 0.7, _factors(rng, d)),
    "nonnegative": lambda rng, d, force, scale: NonNegative(),
    "nonnegative, l1": lambda rng, d, force, scale: NonNegative(0.2 * force, 1.0),
    "groups": lambda rng, d, force, scale: _groups(rng, d, force),
    "strong groups": lambda rng, d, force, scale: _groups(rng, d, 5 * force),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("d", "rank", "scaled"), [
    (1, 1, False), (2, 1, False), (7, 7, False), (7, 7, True), (30, 30, False), (30, 12, False), (30, 12, True),
    (80, 80, True),
])  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_optimality_condition_holds_to_rounding(d, rank, scaled, form, seed):
    """From zero, from a random start, from one on the bounds and from the solution itself."""
    B, c, rng = problem(1000 * seed + d + rank, d, rank, scaled)
    R = Bound(FORMS[form](rng, d, float(np.median(np.abs(c))), scale_of(B)), np.ones(d, bool))
    zero, ref = np.zeros(d), np.zeros(d)
    w = minimise(B, c, R, ref, zero)
    assert distance_from_optimal(B, c, R, ref, w) < 1e-11
    value = objective(B, c, R, ref, w)
    fall = abs(objective(B, c, R, ref, R.project(zero)) - value) + abs(value)
    far = rng.standard_normal(d) * scale_of(B)
    for start in (far, R.project(-10 * far), w):
        again = minimise(B, c, R, ref, start)
        assert distance_from_optimal(B, c, R, ref, again, start) < 1e-11
        assert abs(objective(B, c, R, ref, again) - value) <= 1e-10 * fall


@pytest.mark.parametrize("seed", range(6))
def test_bounds_agree_with_lbfgsb(seed):
    B, c, rng = problem(seed, 15, 15, scaled=False)
    R = Bound(_box(rng, 15, 1.0, 3.0, 0.0), np.ones(15, bool))
    terms = R.terms()
    w = minimise(B, c, R, np.zeros(15), np.zeros(15))
    H = B + np.diag(terms.l2)
    other = minimize(
        lambda x: (0.5 * x @ H @ x - c @ x, H @ x - c), terms.project(np.zeros(15)), jac=True, method="L-BFGS-B",
        bounds=list(zip(terms.lower, terms.upper, strict=True)),
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-10},
    )  # fmt: skip
    np.testing.assert_allclose(w, other.x, atol=1e-6)
    assert R.value(w) < np.inf


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_known_forms_agree_with_their_prox_alone(form, seed):
    B, c, rng = problem(seed, 20, 20, scaled=False)
    mask = np.arange(21)[:-1] != 19
    R = Bound(FORMS[form](rng, 19, float(np.median(np.abs(c))), np.ones(19)), mask)
    start = np.zeros(20)
    w = minimise(B, c, R, start, start)
    np.testing.assert_allclose(minimise(B, c, Bound(Unnamed(R.penalty), mask), start, start), w, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_diagonal_metric_of_known_forms(form):
    rng = np.random.default_rng(3)
    B, c, ref = 10.0 ** rng.uniform(-3, 3, 9), rng.standard_normal(9) * 5, rng.standard_normal(9)
    R = Bound(FORMS[form](rng, 9, 2.0, np.ones(9)), np.ones(9, bool))
    w = minimise(B, c, R, ref, ref)
    np.testing.assert_allclose(w, minimise(np.diag(B), c, R, ref, np.zeros(9)), rtol=1e-9, atol=1e-12)


def test_penalty_that_ties_coordinates_gets_one_step_a_block():
    """‖w‖ known by its prox alone, for which unequal steps are wrong, against the same norm as a group."""
    B, c, _ = problem(6, 8, 8, scaled=False)
    B, c = B * np.outer(*[np.arange(1.0, 9)] * 2), c * np.arange(1.0, 9)
    known = GroupL1(8, 5.0)

    class Tied(Unnamed):
        def prox(self, v, steps):
            assert (steps == steps[0]).all()
            return self.inner.prox(v, steps)

        def blocks(self, d):
            return np.zeros(d, int)

    mask, zero = np.ones(8, bool), np.zeros(8)
    for metric in (B, np.diag(B)):
        w = minimise(metric, c, Bound(known, mask), zero, zero)
        np.testing.assert_allclose(minimise(metric, c, Bound(Tied(known), mask), zero, zero), w, atol=1e-7)
