"""``paramserver compare``: what it makes of its options, in this process."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pandas as pd
import pytest

from paramserver.cli import main
from paramserver.comparison.canvas import canvas
from paramserver.errors import InvalidInput


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((300, 3)), columns=list("abc"))
    frame["late"] = (frame.a + rng.standard_normal(300) > 0).astype(float)
    path = tmp_path_factory.mktemp("compare") / "data.csv"
    frame.to_csv(path, index=False)
    return str(path)


def test_files_in_the_simulator(csv, tmp_path, capsys) -> None:
    words = ["compare", csv, "--target", "late", "--rules", "newton,admm", "--simulate", "workers=4,slow=8x1"]
    words += ["--accuracy", "1e-2,1e-4", "--chunks", "8", "--penalty", "l1", "--alpha", "0.5"]
    assert main([*words, "--json", "--plot", str(tmp_path / "plots")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["rule"], row["accuracy"]) for row in found["rows"]] == [
        ("newton", 1e-2), ("newton", 1e-4), ("admm", 1e-2), ("admm", 1e-4)
    ]  # fmt: skip
    assert all(row["time"] > 0 and row["slowdown"] > 0 for row in found["rows"])
    assert "L1(alpha=0.5)" in found["what"]
    assert {file.name for file in (tmp_path / "plots").iterdir()} == {"gap.png", "residuals.png", "tasks.png"}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("DATA --rules nwton", "consensus must be one of"),
        ("DATA --rules newton --accuracy 1e-4,x", "--accuracy must be numbers"),
        ("DATA --rules newton --accuracy 3 --simulate workers=2", "--accuracy must be numbers in (0, 1)"),
        ("DATA --straggler fast", "--straggler must be how many times"),
        ("DATA --simulate workers=2,slow=8x2", "leaves none of 2 workers"),
        ("DATA --simulate nonsense", "simulate takes workers=64"),
        ("DATA --simulate workers=2 --straggler 5x", "--simulate runs without a cluster"),
        ("DATA --problem poisson --delta 3", "--delta is of huber"),
        ("DATA --rows 100", "--rows is of the article"),
        ("article --rules newton", "leave --rules out"),
        ("article --rows 1000", "rows leave 1 a chunk"),
    ],
)
def test_bad_input_is_said_in_a_line(csv, words, match, capsys) -> None:
    data = [csv, "--target", "late"] if words.startswith("DATA") else ["article"]
    assert main(["compare", *data, *words.split()[1:]]) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("paramserver: ")


def test_where_matplotlib_is_missing_a_line_says_how_to_get_it(monkeypatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InvalidInput, match=r'pip install "paramserver\[plot\]"'):
        canvas()
