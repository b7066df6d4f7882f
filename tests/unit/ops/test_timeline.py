"""The demo's time line of a task, in blocks from its match."""

from __future__ import annotations

from ops.demo.timeline import timeline
from protocol.poco import events
from protocol.poco.events import Event, Seen
from protocol.types import BlockHash, BlockNumber, Contract, Hash32, TaskId, Timestamp, TxHash, Wallet

TASK, ONE, TWO = TaskId("0x" + "aa" * 32), Wallet("0x" + "11" * 20), Wallet("0x" + "22" * 20)
VOTE = Hash32("0x" + "cc" * 32)


def _seen(block: int, index: int, event: Event) -> Seen:
    return Seen(event, BlockNumber(block), BlockHash("0x" + "00" * 32), Timestamp(0), TxHash("0x" + "00" * 32), index)


def test_each_step_is_shown_by_its_distance_from_the_match() -> None:
    line = timeline(
        TASK,
        BlockNumber(10),
        [
            _seen(14, 1, events.TaskFinalize(TASK, "0x")),
            _seen(11, 0, events.TaskInitialize(TASK, Contract("0x" + "00" * 20))),
            _seen(12, 0, events.TaskContribute(TASK, ONE, VOTE)),
            _seen(12, 1, events.TaskContribute(TASK, TWO, VOTE)),
            _seen(12, 2, events.TaskConsensus(TASK, VOTE)),
            _seen(13, 0, events.TaskReveal(TASK, ONE, VOTE)),
            _seen(14, 0, events.FaultyContribution(TWO, TASK)),
        ],
    )
    assert line.text() == (
        "matched 10 → initialized +1 → contributed +2/+2 → consensus +2 → revealed +3 → finalized +4"
    )
    assert line.blocks == 4
    assert line.workers == (ONE, TWO)
    assert line.faulty == (TWO,)


def test_a_running_task_shows_dashes_and_has_no_length() -> None:
    line = timeline(TASK, BlockNumber(10), [])
    assert line.blocks is None
    assert line.text().endswith("finalized –")
