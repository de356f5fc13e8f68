"""A peer's process: python -m tests.benchmarks.peers.serve PEER CASE FOLDER

Answers on stdout, one JSON line a request on stdin. What libraries print goes to stderr, which is a log file.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .cases import BY_NAME
from .data import Store


def main() -> None:
    """Load, say "ready", fit as often as asked, end with stdin."""
    from .registry import PEERS  # here: a LocalCluster's workers import this module too, and count with their memory

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")  # of peers: not converged, deprecated
    peer, case, folder = PEERS[sys.argv[1]](), BY_NAME[sys.argv[2]], Path(sys.argv[3])

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")

    try:
        peer.load(case, Store(folder, case.data))
        say(ready=True)
        for line in sys.stdin:
            request = json.loads(line)
            points = peer.fit(request["limit"], **request["options"])
            np.savez(request["out"], *[point.z for point in points])
            say(seconds=[point.seconds for point in points])
    except Exception as error:
        traceback.print_exc()
        say(error=f"{type(error).__name__}: {error}")
    finally:
        peer.close()


if __name__ == "__main__":
    main()
