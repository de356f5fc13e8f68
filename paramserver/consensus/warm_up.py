"""Newton's first steps on a sample of every chunk's rows, until they are within the sample's own error.

Far from the optimum a Hessian of all rows is wasted: z moves on and it is made again. A sample of one
row in k is as far from the whole as its statistical error, ½·p·k in units of the loss, whatever the
order of the rows, because every chunk gives its share.
"""

from __future__ import annotations

import numpy as np

from paramserver.consensus.base import Setup

PER_COORDINATE = 150  #: rows of the sample; with 60 the first whole Hessians were often made again
PER_CHUNK = 128
SPARSEST = 64  #: one row in so many, at most
DENSEST = 16  #: one row in fewer is no saving: a chunk is visited twice or more
LARGE = 5e5  #: entries of a chunk from which its Hessian costs more than a message
VISITS = 5  #: sampled steps of a chunk, at most


def sampled(setup: Setup) -> int:
    """k, for one row in k; 1 where all rows are as well: few of them, a start of the user's own, a quadratic."""
    if setup.quadratic or not np.array_equal(setup.z, setup.start.z):
        return 1
    if setup.rows / setup.n_chunks * setup.p < LARGE:
        return 1
    k = int(setup.rows / max(PER_COORDINATE * setup.p, PER_CHUNK * setup.n_chunks))
    return 1 if k < DENSEST else min(k, SPARSEST)


def within_error(q: float, p: int, k: float, share: float) -> bool:
    """Whether a step of ½‖step‖²_H = q on a chunk with this share of the rows is within the sample's error."""
    return q <= 0.5 * p * k * share
