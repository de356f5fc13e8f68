"""The sweep over workers, the plot, and this benchmark's section of RESULTS.md."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from paramserver.server.engine import HEAVY

from .clock import Form, Timing, timing
from .costs import Costs, load

HERE = Path(__file__).parent.parent
TEXT = Path(__file__).with_name("text.md")
WORKERS = tuple(2**k for k in range(3, 11))
STEPS = 8.0  #: a chunk, at most: the shares of time are the same from there on
CHUNKS = 8  #: of the real runs
Lines = dict[tuple[Costs, bool], list[float]]


def forms(costs: Costs) -> dict[str, tuple[Costs, dict[str, Any]]]:
    """What could move the bottleneck: other costs, or another form."""
    larger = replace(costs, **{each: 4 * getattr(costs, each) for each in ("step", "hessian", "verify", "survey")})
    free = {"choose_live": 0.0, "choose_wanted": 0.0, "merge": 0.0}
    return {
        "as it is": (costs, {}),
        "never coalesced": (costs, {"coalesce": "never"}),
        "always coalesced": (costs, {"coalesce": "always"}),
        "1 push for 4 chunks": (larger, {"chunks": 1}),
        "float32": (_half(costs), {}),
        "dispatch free of N": (replace(costs, **free), {"wake": "news"}),
        "z on 4 servers": (sharded(costs), {}),
        "all but 4 servers": (replace(_half(larger), **free), {"chunks": 1, "wake": "news", "coalesce": "always"}),
    }


def _half(costs: Costs) -> Costs:
    """float32 on the wire: half of the bytes, either way."""
    return replace(costs, push=costs.push / 2, push_hessian=costs.push_hessian / 2, send=costs.send / 2)


@cache
def at(costs: Costs, workers: int, sync: bool, **options: Any) -> Timing:
    """One point of a line."""
    steps = min(STEPS, costs.sweeps_sync if sync else costs.sweeps)
    return timing(costs, Form(workers, sync=sync, **options), sweeps=steps)


def line(costs: Costs, sync: bool, options: dict[str, Any], lowest: float = 0.0) -> list[float]:
    """The share of their time that workers compute, by their number, until it is under ``lowest``."""
    out: list[float] = []
    for workers in WORKERS:
        out.append(at(costs, workers, sync, **options).computing)
        if out[-1] < lowest:
            break
    return out


def half_point(shares: list[float]) -> float:
    """How many workers compute half of their time, between two of `WORKERS`; inf: more than the most of them."""
    for k, share in enumerate(shares):
        if share < 0.5:
            if k == 0:
                return WORKERS[0] * share / 0.5
            a, b = shares[k - 1], share
            return WORKERS[k - 1] * 2 ** ((math.log(a) - math.log(0.5)) / (math.log(a) - math.log(b)))
    return math.inf


def sharded(costs: Costs, servers: int = 4) -> Costs:
    """At best: arrays and arithmetic over so many servers evenly, each still with a message of every push."""
    share = {name: getattr(costs, name) / servers for name in ("byte", "send", "absorb", "plan", "consensus", "look")}
    return replace(costs, absorb_hessian=costs.absorb_hessian / servers, **share)


def shares(costs: Costs, sync: bool) -> tuple[float, float]:
    """The event loop's seconds for a push among 8 workers: what does not depend on p, and what does."""
    n, steps = 4 * WORKERS[0], costs.sweeps_sync if sync else costs.sweeps
    some = (costs.hessians_sync if sync else costs.hessians) / steps
    fixed = costs.message + costs.choose + n * (costs.choose_live + costs.choose_wanted)
    arrays = costs.byte * (costs.push + some * costs.push_hessian) + costs.send / (4.0 if sync else 1.0)
    absorb = some * costs.absorb_hessian + (1 - some) * costs.absorb + costs.plan
    z = costs.consensus + (n if sync else 8) * costs.look  # an estimate every eighth of a sweep
    here = z * (1 / n if sync else 1.0) * (z <= HEAVY)  # else in a thread
    return fixed, arrays + absorb + here


# -- what is said of it ----------------------------------------------------------------------------


def name(costs: Costs) -> str:
    return f"{costs.d:>7,} {costs.rule}"


def costs_table(costs: list[Costs]) -> list[str]:
    head = (
        f"{'d, rule':26}{'step':>7}{'+Hessian':>9}{'push kB':>9}{'+Hessian':>9}{'message':>9}{'arrays':>8}{'absorb':>8}"
        f"{'z-step':>8}{'steps a chunk: async':>22}{'sync':>6}"
    )
    return [head] + [
        f"{name(c):26}{c.step * 1e3:7.1f}{c.hessian * 1e3:9.1f}{c.push / 1e3:9.1f}{c.push_hessian / 1e3:9.0f}"
        f"{c.message * 1e3:9.2f}{(c.byte * c.push + c.send) * 1e3:8.2f}{c.absorb * 1e3:8.2f}{c.consensus * 1e3:8.2f}"
        f"{c.sweeps:22.1f}{c.sweeps_sync:6.1f}"
        for c in costs
    ]


def checks(costs: list[Costs], runs: list[dict[str, Any]]) -> list[str]:
    """Real runs, and the same predicted; the number of pushes is the real run's."""
    if not runs:
        return ["none yet: --check, on a quiet machine"]
    by = {(c.d, c.rule): c for c in costs}
    head = f"{'d, rule':26}{'processes':>10}{'z from':>7}{'pushes':>7}{'seconds':>9}{'predicted':>10}{'error':>7}"
    out = [f"{head}{'CPU each':>10}{'predicted':>10}{'error':>7}"]
    for run in runs:
        c, sync, workers = by[run["d"], run["rule"]], run["sync"], run["workers"]
        steps = run["pushes"] / CHUNKS - 2  # but the survey and the verification
        seconds, _, _, busy, computing = timing(c, Form(workers, CHUNKS // workers, sync=sync), sweeps=steps)
        cpu = seconds * (computing + busy / workers)
        out.append(
            f"{name(c):26}{workers:>10}{_from(sync)}{run['pushes']:7.0f}{run['seconds']:9.2f}{seconds:10.2f}"
            f"{seconds / run['seconds'] - 1:+7.0%}{run['cpu']:10.2f}{cpu:10.2f}{cpu / run['cpu'] - 1:+7.0%}"
        )
    return out


def points(lines: Lines) -> list[str]:
    out = [
        f"{'d, rule':26}{'z from':>7}{'ms a push: fixed':>18}{'by p':>7}{'pushes/s':>10}{'half at':>9}{'at 1024':>9}"
    ]
    for (c, sync), line_ in lines.items():
        fixed, by_p = shares(c, sync)
        out.append(
            f"{name(c):26}{_from(sync)}{fixed * 1e3:18.2f}{by_p * 1e3:7.2f}{1 / (fixed + by_p):10.0f}"
            f"{_workers(half_point(line_)):>9}{line_[-1]:9.1%}"
        )
    return out


def _from(sync: bool) -> str:
    return f"{'all' if sync else 'each':>7}"


def _workers(n: float) -> str:
    return ">1024" if math.isinf(n) else f"{n:.0f}"


@cache
def half(costs: Costs, sync: bool, form: str) -> float:
    """The half point under a form."""
    changed, options = forms(costs)[form]
    return half_point(line(changed, sync, options, 0.5))


def moves(lines: Lines) -> list[str]:
    """The half point under each form."""
    names = list(forms(next(iter(lines))[0]))
    out = [f"{'d, rule':26}{'z from':>7}" + "".join(f"{each:>{len(each) + 3}}" for each in names)]
    for c, sync in lines:
        cells = (f"{_workers(half(c, sync, each)):>{len(each) + 3}}" for each in names)
        out.append(f"{name(c):26}{_from(sync)}" + "".join(cells))
    return out


def gain(lines: Lines, form: str) -> str:
    """By what the half point is multiplied, over all lines: least to most."""
    ratios = [half(c, sync, form) / half(c, sync, "as it is") for c, sync in lines]
    return f"{min(ratios):.2g} to {max(ratios):.2g}"


def plot(lines: Lines, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), sharex=True, sharey=True, layout="constrained")
    colours = {costs: f"C{k}" for k, costs in enumerate(dict.fromkeys(c for c, _ in lines))}
    for (costs, sync), line_ in lines.items():
        label = f"d = {costs.d:,}, {costs.rule}"
        axes[0][int(sync)].plot(WORKERS, line_, color=colours[costs], marker="o", ms=4, label=label)
    first = next(iter(lines))[0]
    for sync in (False, True):
        for form, (costs, options) in forms(first).items():
            shares_ = line(costs, sync, options, 0.03)
            axes[1][int(sync)].plot(WORKERS[: len(shares_)], shares_, marker="o", ms=4, label=form)
        axes[0][int(sync)].set_title("z from all chunks (synchronous)" if sync else "z from each push (asynchronous)")
        axes[1][int(sync)].set_title(f"what moves it, d = {first.d}")
    for ax in axes.flat:
        ax.axhline(0.5, color="0.7", lw=1)
        ax.set(xscale="log", yscale="log", ylim=(1e-3, 1.1), xticks=WORKERS, xticklabels=WORKERS)
        ax.minorticks_off()
        ax.legend(fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("share of the time that workers compute")
    for ax in axes[1]:
        ax.set_xlabel("workers")
    figure.savefig(file, dpi=80)


# -- all of it -------------------------------------------------------------------------------------


def write() -> None:
    """The plot, and the section of RESULTS.md between its marks."""
    kept = load()
    costs = [Costs(**each) for each in kept["costs"]]
    if not costs:
        raise SystemExit("nothing was measured yet: run with --measure first")
    lines = {(c, sync): line(c, sync, {}) for sync in (False, True) for c in costs if sync or c.rule != "LBFGS"}
    plot(lines, HERE / "scaling.png")
    tables = {"costs": costs_table(costs), "checks": checks(costs, kept["runs"]), "points": points(lines)}
    said = {each: "\n".join("    " + row.rstrip() for row in rows) for each, rows in tables.items()}
    said["moves"] = "\n".join("    " + row.rstrip() for row in moves(lines))
    said |= {f"gain_{k}": gain(lines, form) for k, form in enumerate(forms(costs[0]))}
    text = TEXT.read_text().format(**said).strip()
    file = HERE / "RESULTS.md"
    section = f"<!-- scaling -->\n{text}\n<!-- /scaling -->"
    old = file.read_text()
    marked = re.compile(r"<!-- scaling -->.*<!-- /scaling -->", re.DOTALL)
    new = marked.sub(lambda _: section, old) if marked.search(old) else f"{old.rstrip()}\n\n{section}\n"
    file.write_text(new)
