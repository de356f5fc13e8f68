"""Reads the JSON line of ``paramserver fit flights --tol 1e-8 --json`` and says whether it is right."""

import json
import sys

OPTIMUM = 165643.916352  # Newton's method on all rows at once, to 1e-12

result = json.loads(sys.stdin.read())
assert result["converged"], result
assert result["certificate"] == "duality gap", result
assert (result["n_rows"], result["n_features"]) == (327346, 164), result
assert 0 <= result["gap"] <= 1e-8, result
assert abs(result["objective"] - OPTIMUM) <= 1e-8 * 179314 + 1e-4, result
print(f"fit: objective {result['objective']:.6f}, gap {result['gap']:.1e}, {result['seconds_total']:.1f} s")
