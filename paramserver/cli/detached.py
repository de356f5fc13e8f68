"""``paramserver fit … --detach``: submit a head job and leave; and what that job does."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from paramserver.cli.clusters import Place
from paramserver.cli.common import line, plain, result_dict
from paramserver.cli.report import Live
from paramserver.cluster import head, schedulerfile
from paramserver.cluster.request import Request
from paramserver.errors import CheckpointError, InvalidInput, ParamServerError
from paramserver.server.store import Store
from paramserver.views import Result

OVER = ("converged", "finished", "failed")
SAY = 30.0  #: seconds between lines in the job's output


def detach(args: argparse.Namespace, request: Request | None, name: str) -> int:
    """Submit the head job, wait until its run is there, and say how to reach it."""
    if request is None:
        raise InvalidInput("--detach is for a batch system's jobs: say which, --cluster slurm")
    folder = head.Folder(args.detach or f"paramserver-{name}")
    folder.make()
    words = _without(args.words, args.detach)
    head.write_script(folder, request, [*words, "--head", str(folder.path)])
    if args.dry_run:
        print(folder.script.read_text(), end="")
        folder.unmake()
        return 0
    try:
        job = head.submit(folder, request)
    except ParamServerError:
        folder.unmake()
        raise
    live = Live()
    came = False
    with contextlib.suppress(KeyboardInterrupt):
        came = head.wait(folder, request, job, live.show)
    live.end()
    print(f"{'detached' if came else 'submitted'}: job {job}, folder {folder.path}", file=sys.stderr)
    for command in ("watch", "status", "params", "stop"):
        print(f"    paramserver {command} --scheduler-file {folder.scheduler}", file=sys.stderr)
    return 0


def _without(words: list[str], folder: str) -> list[str]:
    """The command without ``--detach`` and ``--dry-run``."""
    kept = [word for word in words if word != "--dry-run" and not word.startswith("--detach=")]
    if "--detach" in kept:
        k = kept.index("--detach")
        kept[k : k + (2 if folder and kept[k + 1 : k + 2] == [folder] else 1)] = []
    return kept


# -- within the job ----------------------------------------------------------------------------------


class Head:
    """The part of ``paramserver fit`` that is another one in a head job. A fit that has checkpoints goes on there."""

    def __init__(self, args: argparse.Namespace, request: Request | None, given: dict[str, Any]) -> None:
        if request is None:
            raise InvalidInput("--head is for head jobs, which --cluster and --detach make")
        self.folder, self.warned = head.Folder(args.head), head.warned()
        keywords = {"log_directory": str(self.folder.path / "workers"), **request.keywords}
        self.asked, self.request = request, dataclasses.replace(request, wait=head.PATIENCE, keywords=keywords)
        url = args.resume or given.pop("checkpoint", str(self.folder.checkpoint))
        if Store(url).names():
            args.resume = url
        else:
            given["checkpoint"] = url

    def run(self, fit: Any, place: Place, show: Callable[[Result, float, Callable[[], None]], None]) -> int:
        """Until the run is over, or this job is about to be and has a successor."""
        began = time.monotonic()
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it mourns every server that ends
        tls = None if place.file is None else schedulerfile.read(place.file).tls
        address = place.client.scheduler.address
        with self.folder.announced(address, tls), contextlib.ExitStack() as stack:
            serve = partial(stack.enter_context, head.worker(address, tls))
            result = self._follow(fit, serve)
            if result is not None:
                found = {"intercept": result.intercept_, "coef": result.named(), "z": result.z}
                self.folder.conclude(plain({**result_dict(result), **found}))
                show(result, time.monotonic() - began, partial(self._kept, fit))
        return 0

    def _follow(self, fit: Any, serve: Callable[[], str]) -> Result | None:
        """The result; None where a successor goes on. The server comes to this job's worker."""
        said, home, moved = 0.0, "", False
        for status in fit.watch(every=0.5):
            now, over = time.monotonic(), status.state in OVER
            if over or now - said > SAY:
                print(line(status), file=sys.stderr, flush=True)
                said = now
            if not over and self.warned.is_set() and self._hand_on(fit):
                return None
            # Not before every chunk was read: Dask would send some to this worker, which are for the others
            if not (over or moved) and status.pushes >= status.n_chunks:
                home = home or serve()
                moved = self._moved(fit, home)
        return fit.result(timeout=60.0)  # type: ignore[no-any-return]

    def _moved(self, fit: Any, home: str) -> bool:
        with contextlib.suppress(ParamServerError):  # it has not joined yet
            fit.move_server(home)
            return True
        return False

    def _hand_on(self, fit: Any) -> bool:
        """Suspend the run, and submit the job again."""
        try:
            fit.suspend()
        except CheckpointError as error:  # nothing read yet, so nothing is lost
            print(f"{error}; the next job begins anew", file=sys.stderr, flush=True)
        except ParamServerError as error:
            print(error, file=sys.stderr, flush=True)
            return False
        job = head.submit(self.folder, self.asked)
        print(f"this job is about to end: job {job} goes on", file=sys.stderr, flush=True)
        return True

    def _kept(self, fit: Any) -> None:
        """Until somebody stops the run, or this job is about to end: its result is in the folder."""
        while fit.status().state == "converged" and not self.warned.wait(1.0):
            pass
