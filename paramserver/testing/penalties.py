"""The laws of a penalty."""

from __future__ import annotations

import numpy as np

from paramserver.penalties import Penalty
from paramserver.testing.laws import frozen, hands_off, law, same, travelled


@hands_off
def check_penalty(penalty: Penalty, d: int = 8, seed: int = 0) -> None:
    """Value, prox and subgradient belong to one convex function of ``d`` coordinates."""
    rng = np.random.default_rng(seed)
    ones = penalty.project(np.ones(d))
    same(travelled(penalty).value(ones), penalty.value(ones), "a penalty survives pickling")
    drawn, terms, blocks = [], penalty.terms(d), penalty.blocks(d)
    for _ in range(20):
        v, near = frozen(rng.standard_normal(d) * 10.0 ** rng.uniform(-2, 2)), frozen(rng.standard_normal(d))
        steps = 10.0 ** rng.uniform(-2, 2, d)
        steps = frozen(steps if blocks is None else steps[blocks])  # one a block
        w = penalty.prox(v, steps)
        law(w.shape == (d,) and np.isfinite(w).all(), f"prox returns {d} finite numbers, got {w!r}")
        slope = (v - w) / steps
        off = np.abs(slope - penalty.subgradient(w, slope)) / (1 + np.abs(slope) + np.abs(v / steps))
        law(off.max() <= 1e-7, f"(v - prox(v))/steps is a subgradient at prox(v): off by {off.max():.2e} relatively")
        inside = penalty.project(v)
        law(np.isfinite(penalty.value(inside)), f"project leads to where value is finite, not to {inside!r}")
        law(np.array_equal(penalty.project(w), w), f"project leaves {w!r} alone: value is finite there")
        drawn.append((v, w, penalty.subgradient(w, near), near, steps))
    for (v, w, g, near, steps), (v2, w2, *_) in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        value, value2, middle = (penalty.value(x) for x in (w, w2, penalty.project(0.3 * w + 0.7 * w2)))
        slack = 1e-9 * (1 + abs(value) + abs(value2) + float(np.abs(g) @ np.abs(w2 - w)))
        law(value >= 0 and np.isfinite(value), f"value is finite and >= 0 where prox leads, got {value}")
        law(middle <= 0.3 * value + 0.7 * value2 + slack, f"value is convex: {middle} between {value} and {value2}")
        below = value + float(g @ (w2 - w))
        law(value2 >= below - slack, f"R(w') >= R(w) + g'(w' - w): {value2} < {below}")
        law(np.allclose(penalty.subgradient(w, g), g), f"the subgradient nearest to one of them, {g}, is itself")
        same(penalty.distance(w, near), np.linalg.norm(near - g), "distance is that to the nearest subgradient")
        apart, moved = (v - v2) ** 2 @ (1 / steps), (w - penalty.prox(v2, steps)) ** 2 @ (1 / steps)
        law(moved <= apart * (1 + 1e-9), f"prox is nonexpansive in the metric 1/steps: {moved} > {apart}")
        if terms is not None:
            same(value, terms.value(w), "value is what terms say")
            same(w, terms.prox(v, steps), "prox is what terms say")
