"""Finalize right behind the last reveal (SLUICE_STATE=pending): when the lane gets it, and for which consensus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from chain.lane.model.intent import BEHIND, UNTIL
from pipeline.domain.actions import Method, Submit
from pipeline.domain.decide import decide
from pipeline.domain.progress import after
from pipeline.domain.records import Replicate
from pipeline.domain.replicas import Timeouts
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView
from protocol.wire import Step
from tests.unit.pipeline.builders import (
    CONSENSUS,
    FINAL,
    PACE,
    SECONDS,
    START,
    TASK,
    TRUTH,
    replicate,
    revealed,
    task,
    uploaded,
    view,
    wallet,
)

AHEAD = replace(PACE, early_steps=True)


def told(item: Replicate) -> Replicate:
    """The replicate of a worker that reports that its reveal was sent."""
    return replace(item, steps={**item.steps, Step.REVEALED: START + 3.0})


def finalizes(replicates: Sequence[Replicate], chain: ChainView, timeouts: Timeouts = AHEAD) -> list[Submit]:
    record = task(trust=5, replicates=replicates)
    actions = decide(record, chain, START + 4, timeouts)
    return [item for item in actions if isinstance(item, Submit) and item.method is Method.FINALIZE]


def test_finalize_is_handed_over_once_every_winner_says_that_its_reveal_is_sent() -> None:
    (found,) = finalizes([told(uploaded(1)), told(replicate(2)), told(replicate(3))], view(*CONSENSUS))
    assert found.args["consensus"] == result_hash(TASK, TRUTH)
    assert found.args[UNTIL] == START + 2 + 2 * SECONDS, "it does not outlive a reopening, which has one of its own"
    assert found.args[BEHIND] == ",".join(wallet(number) for number in (1, 2, 3))


def test_a_reveal_that_is_in_a_block_counts_as_well() -> None:
    winners = [uploaded(1), told(replicate(2)), told(replicate(3))]
    assert finalizes(winners, view(*CONSENSUS, revealed(1)))


@pytest.mark.parametrize("silent", [1, 2, 3])
def test_it_waits_while_one_winner_has_neither_revealed_nor_reported_it(silent: int) -> None:
    winners = [uploaded(1), replicate(2), replicate(3)]
    assert not finalizes(
        [item if number == silent else told(item) for number, item in enumerate(winners, start=1)], view(*CONSENSUS)
    )


def test_it_waits_for_the_result() -> None:
    assert not finalizes([told(replicate(1)), told(replicate(2)), told(replicate(3))], view(*CONSENSUS))


def test_with_latest_it_waits_for_the_blocks_of_the_reveals() -> None:
    winners = [told(uploaded(1)), told(replicate(2)), told(replicate(3))]
    assert not finalizes(winners, view(*CONSENSUS), PACE)


@pytest.mark.parametrize("timeouts", [PACE, AHEAD])
def test_once_all_are_in_blocks_it_is_what_it_always_was(timeouts: Timeouts) -> None:
    winners = [told(uploaded(1)), told(replicate(2)), told(replicate(3))]
    (found,) = finalizes(winners, view(*CONSENSUS, revealed(1), revealed(2), revealed(3)), timeouts)
    assert sorted(found.args) == ["callback", "consensus", "results"], "after a reorg there may be another"


def test_it_is_handed_over_once_and_its_block_is_waited_for() -> None:
    record = task(trust=5, replicates=[told(uploaded(1)), told(replicate(2)), told(replicate(3))])
    early = after(record, view(*CONSENSUS), decide(record, view(*CONSENSUS), START + 4, AHEAD), START + 4, AHEAD)
    assert Method.FINALIZE in early.sent
    chain = view(*CONSENSUS, *map(revealed, (1, 2, 3)))
    assert not [item for item in decide(early, chain, START + 5, AHEAD) if isinstance(item, Submit)]


def test_after_the_final_deadline_reports_of_reveals_finalize_nothing() -> None:
    record = task(trust=5, replicates=[told(uploaded(1)), told(replicate(2)), told(replicate(3))])
    actions = decide(record, view(*CONSENSUS), float(FINAL), AHEAD)
    assert [item.method for item in actions if isinstance(item, Submit)] == [Method.CLAIM]
