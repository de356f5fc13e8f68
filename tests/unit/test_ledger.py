"""What a worker keeps of its pushes, for a server that takes over."""

import numpy as np

from paramserver.messages import Push, Task, Version
from paramserver.workers.ledger import LONGEST, Ledger

AT = Version(1, 3)


def push(chunk, seq, size=10):
    return Push(chunk, seq, Task.SOLVE, AT, {"x": np.zeros(size)}, seq - 1)


def seqs(pushes):
    return [(p.chunk, p.seq) for p in pushes]


def test_a_whole_push_and_what_came_on_top():
    ledger = Ledger(None)
    ledger.add(push(0, 1), whole=True)
    ledger.add(push(0, 2), whole=False)
    ledger.add(push(1, 7), whole=True)
    ledger.add(push(0, 3), whole=False)
    assert seqs(ledger.since({0: None, 1: None})) == [(0, 1), (0, 2), (0, 3), (1, 7)]
    assert seqs(ledger.since({0: 2, 1: 7})) == [(0, 3)]
    assert seqs(ledger.since({1: 0})) == [(1, 7)]
    assert seqs(ledger.since({5: None})) == []


def test_another_whole_push_takes_their_place():
    ledger = Ledger(None)
    for seq in (1, 2, 3):
        ledger.add(push(0, seq), whole=seq != 2)
    assert seqs(ledger.since({0: None})) == [(0, 3)]


def test_the_last_push_is_kept_whatever_is_too_much():
    """It may be under way to a server that dies; what came before can be computed again."""
    ledger = Ledger(None)
    for seq in range(1, LONGEST + 2):
        ledger.add(push(0, seq), whole=seq == 1)
    assert seqs(ledger.since({0: None})) == [(0, LONGEST + 1)]
    small = Ledger(20 * 3000.0)  # 3000 bytes
    for chunk in range(3):
        small.add(push(chunk, 1, 100), whole=True)
        small.add(push(chunk, 2, 100), whole=False)
    kept = seqs(small.since(dict.fromkeys(range(3))))
    assert (2, 2) in kept
    assert len(kept) == 3


def test_a_push_larger_than_the_budget_is_not_kept():
    small = Ledger(20 * 100.0)
    small.add(push(0, 1, 1000), whole=True)
    assert small.since({0: None}) == []
