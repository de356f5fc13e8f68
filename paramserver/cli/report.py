"""What ``paramserver fit`` says on the way and at the end."""

from __future__ import annotations

import sys

import numpy as np

from paramserver.views import Result

STRONGEST = 12  #: coefficients shown


class Live:
    """A line on stderr: rewritten on a terminal; elsewhere printed, where it says something new."""

    def __init__(self) -> None:
        self.rewrites, self.shown = sys.stderr.isatty(), ""

    def show(self, text: str) -> None:
        """Say this now."""
        if self.rewrites:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        elif text != self.shown:
            print(text, file=sys.stderr, flush=True)
        self.shown = text

    def end(self) -> None:
        """What follows is on a line of its own."""
        if self.rewrites and self.shown:
            print(file=sys.stderr, flush=True)
        self.shown = ""


def report(result: Result, seconds: float) -> None:
    """The result for people."""
    strongest = sorted(result.named().items(), key=lambda item: -abs(item[1]))[:STRONGEST]
    width = max((len(name) for name, _ in strongest), default=0)
    print(f"\nstrongest of {result.n_features} coefficients ({result.penalty}, {result.consensus})")
    for name, value in strongest:
        print(f"    {name:<{width}}  {value:+.4f}")
    intercepts = " ".join(f"{value:+.4f}" for value in np.ravel(result.intercept_))
    print(f"    {'intercept':<{width}}  {intercepts}\n")
    print(f"objective      {result.objective:.10g}")
    print(
        f"certificate    F − F* ≤ {result.gap_absolute:.2g}, {result.gap:.1e} of the null model ({result.certificate})"
    )
    print(f"               at most {result.standard_errors:.2g} standard errors from the optimum")
    print(f"rows, chunks   {result.n_rows:,}, {result.n_chunks}")
    refused = f", {result.n_refused} refused" if result.n_refused else ""
    print(f"pushes         {result.n_pushes} ({result.n_pushes / result.n_chunks:.1f} a chunk){refused}")
    print(f"seconds        {result.seconds:.2f} to fit, {seconds:.2f} in all")
    print(f"ended          {result.reason}{'' if result.converged else ' (not converged)'}")
    for note in result.notes:
        print(f"note           {note}")
