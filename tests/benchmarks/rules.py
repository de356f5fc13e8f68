"""Rules compared on the flights, with a straggler and without, and in the simulator; and the 2017 article.

    python -m tests.benchmarks.rules [flights] [simulated] [article]

Each writes its own section of RESULTS.md and its pictures; all three without an argument.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import paramserver as ps  # imports no numpy: `common` sets BLAS threads before that

from .common import local, logistic_data

HERE = Path(__file__).parent
ACCURACY = (1e-4, 1e-6, 1e-8)
NEAR, OTHERS = ("newton", "admm"), ("prox_gradient", "fedavg", "easgd", "sgd")
CHUNKS, REPEATS, LIMIT = 32, 3, 20.0


def flights() -> str:
    """On two workers. Rules that go on until the limit do so once."""
    with local() as client:
        X, y = ps.datasets.flights(chunks=CHUNKS)
        given = {"penalty": ps.L2(1.0), "accuracy": ACCURACY, "client": client, "straggler": 5.0, "limit": LIMIT}
        near = ps.compare(NEAR, ps.Logistic(), X, y, repeats=REPEATS, **given)
        others = ps.compare(OTHERS, ps.Logistic(), X, y, **given)
    whole = replace(near, runs=[*near.runs, *others.runs])
    pictures(whole, "rules")
    return f"""## Rules compared: flights, two workers, one of them six times slower

    python -m tests.benchmarks.rules flights

Medians of {REPEATS} runs in turns, the last four rules once; no run was longer than {LIMIT:g} s.
With a perfect division of the work the slowdown would be 1.71.

{indented(str(whole))}

![gap against time and pushes](rules-gap.png)
![primal and dual residuals](rules-residuals.png)
![what each worker did](rules-tasks.png)"""


def simulated() -> str:
    """64 workers in virtual time."""
    X, y = logistic_data(50_000, 20)
    found = ps.compare(
        (*NEAR, *OTHERS), ps.Logistic(), X, y, penalty=ps.L2(1.0), accuracy=ACCURACY,
        simulate="workers=64,slow=8x1", chunks=256, limit=150.0,
    )  # fmt: skip
    return f"""## Rules compared: 64 workers in virtual time, one of them eight times slower

    python -m tests.benchmarks.rules simulated

Logistic regression, rows alike; no run was longer than 150 passes over a chunk.

{indented(str(found))}"""


def article() -> str:
    """At its exact sizes."""
    from paramserver.comparison.article import experiment

    found = experiment(say=lambda text: print(text, file=sys.stderr, flush=True))
    pictures(found, "")
    theirs, ours = found.published["asynchronous"], found.ours["AggregatedNewton"]
    return f"""## The 2017 article

    python -m tests.benchmarks.rules article        # or paramserver compare article

Its toy experiment at its exact sizes and constants; the asynchronous variants' numbers are medians over schedules.
`AggregatedNewton` is at ‖z − z*‖∞ ≤ 1e-6 after {ours.until(1e-6)} tasks, the survey of every chunk among them; the
article's asynchronous variant is at 1e-2 after {theirs.until(1e-2)}.

{indented(str(found))}

![primal residual and error against tasks](article.png)"""


def indented(text: str) -> str:
    """As a block."""
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def pictures(found: ps.Comparison | object, name: str) -> None:
    """Beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        for file in found.plot(folder):  # type: ignore[attr-defined]
            shutil.copy(file, HERE / "-".join(filter(None, (name, file.name))))


def write(name: str, text: str) -> None:
    """The section of RESULTS.md between its marks."""
    file, mark = HERE / "RESULTS.md", f"rules {name}"
    section = f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->"
    old = file.read_text()
    marked = re.compile(rf"<!-- {mark} -->.*<!-- /{mark} -->", re.DOTALL)
    file.write_text(marked.sub(lambda _: section, old) if marked.search(old) else f"{old.rstrip()}\n\n{section}\n")


if __name__ == "__main__":
    parts = {"flights": flights, "simulated": simulated, "article": article}
    for part in sys.argv[1:] or parts:
        write(part, parts[part]())
        print(f"{part} written", flush=True)
