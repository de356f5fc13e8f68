"""What the supervisor's record of a run says to its user."""

from __future__ import annotations

from paramserver.supervisor.record import RunRecord


def record() -> RunRecord:
    return RunRecord("r", "id", {0: ("a",), 1: ("b",)}, b"", None)


def test_nothing_is_warned_of_where_everything_can_be_computed_again() -> None:
    assert record().warning == ""
    some = record()
    some.perishable = 1
    assert some.warning.startswith("1 of 2 chunks were put on workers as they are")
    assert some.summary()["warning"] == some.warning


def test_the_way_on_is_by_a_checkpoint_where_there_is_one() -> None:
    without, one = record(), record()
    one.checkpoint = "s3://bucket/r"
    assert without.way_on == "launch again, with z0= the parameters that were read last"
    assert one.way_on == f"go on from its checkpoint, paramserver.resume('s3://bucket/r'), or {without.way_on}"
