"""Silent, deaf and dying parts: every deal still completes, or fails on chain with all stakes unlocked."""

from __future__ import annotations

from collections.abc import Callable

from bench.rig.reorg import replace_blocks
from ops.market.match import Matched
from ops.poco.deploy import TEST_CATEGORY
from pipeline.broker import segments
from pipeline.domain.records import Outcome, ReplicateState, TaskStage
from pipeline.scheduler import Scheduler
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import TaskId
from protocol.wire import Mode
from tests.integration.pipeline.conftest import AGAIN_CATEGORY, SHORT_CATEGORY, Pool
from tests.waiting import until

PARTS = ("watch", "pipeline", "lane", "beat")
UNLOCKED = [0, 0, 0, 0, 0]


def started(make_pool: Callable[..., Pool], **overrides: object) -> Pool:
    pool = make_pool(**overrides)
    for name in PARTS:
        pool.start(name)
    return pool


def some_done(pool: Pool, deal: Matched, count: int) -> bool:
    return sum(view.status is TaskStatus.COMPLETED for view in pool.views(deal)) >= count


def test_a_winner_that_never_reveals_is_left_behind(pool: Pool) -> None:
    for number in range(2):
        pool.enrol(number)
    pool.enrol(2, deaf={"worker.reveal", "worker.upload"})
    deal = pool.buy(trust=5, category=SHORT_CATEGORY)
    pool.await_status(deal, TaskStatus.REVEALING)
    pool.await_status(deal, TaskStatus.COMPLETED, 60)
    (record,) = pool.await_closed(deal)
    assert record.stage is TaskStage.COMPLETED


def test_if_no_winner_reveals_others_are_asked_to_compute(make_pool: Callable[..., Pool]) -> None:
    pool = started(make_pool)
    mute = pool.enrol(0, deaf={"worker.reveal", "worker.upload"})
    deal = pool.buy(trust=2, category=AGAIN_CATEGORY)
    pool.await_status(deal, TaskStatus.REVEALING)
    pool.enrol(1)
    pool.await_status(deal, TaskStatus.COMPLETED, 90)
    (record,) = pool.await_closed(deal)
    assert len(record.replicates) == 2
    assert record.replicates[0].wallet == mute.key.wallet


def test_a_vote_at_trust_1_that_is_never_revealed_costs_its_voter_the_stake_and_the_task_is_done_by_another(
    make_pool: Callable[..., Pool],
) -> None:
    """Nobody is asked for such a vote, and after it the contract takes no `contributeAndFinalize` from anybody else."""
    pool = started(make_pool)
    mute = pool.enrol(0, deaf={"worker.reveal", "worker.upload"})
    mute.votes = True
    deal = pool.buy(trust=1, category=AGAIN_CATEGORY)
    pool.await_status(deal, TaskStatus.REVEALING)
    other = pool.enrol(1)
    pool.await_status(deal, TaskStatus.COMPLETED, 90)
    (record,) = pool.await_closed(deal)
    assert [(item.wallet, item.mode) for item in record.replicates] == [
        (mute.key.wallet, Mode.SOLO),
        (other.key.wallet, Mode.VOTE),
    ]
    assert record.worker_stake > 0
    assert [Outcome.WITHHELD in item.counted for item in record.replicates] == [True, False]
    assert pool.locked() == UNLOCKED
    (view,) = pool.views(deal)
    assert [vote.status for vote in view.contributions] == [ContributionStatus.REJECTED, ContributionStatus.REVEALED]


def test_a_worker_that_falls_silent_is_replaced(make_pool: Callable[..., Pool]) -> None:
    pool = started(make_pool, worker_lost_seconds=3.0)
    dead = pool.enrol(0, deaf={"worker.compute"})
    deal = pool.buy(trust=1)
    until("it has the task", lambda: pool.store.tasks.of_worker(dead.key.wallet))
    dead.stop()
    pool.enrol(1)
    pool.await_status(deal, TaskStatus.COMPLETED, 30)
    (record,) = pool.await_closed(deal)
    lost = record.replicate(dead.key.wallet)
    assert lost is not None
    assert lost.state is ReplicateState.LOST


def test_a_worker_whose_queues_are_gone_is_passed_over(make_pool: Callable[..., Pool]) -> None:
    """RabbitMQ says so as they go; and what is sent to it before that is known finds no queue, which says so too."""
    pool = started(make_pool, worker_lost_seconds=30.0)
    gone = pool.enrol(0, deaf={"worker.compute"}, slots=2)
    gone.stop()
    pool.admin.remove(gone.key.wallet)
    deal = pool.buy(trust=1)
    pool.enrol(1)
    pool.await_status(deal, TaskStatus.COMPLETED, 20)
    pool.await_closed(deal)
    assert not gone.seen


def test_a_worker_that_has_no_queue_for_its_message_counts_as_silent(make_pool: Callable[..., Pool]) -> None:
    """Nothing is started: no event of RabbitMQ is followed."""
    pool = make_pool()
    machine = pool.enrol(0)
    wallet = machine.key.wallet
    machine.stop()
    pool.admin.remove(wallet)
    scheduler = Scheduler.open(pool.settings)
    try:
        scheduler.publish([segments.abort(scheduler.pool, wallet, TaskId("0x" + "11" * 32))])
    finally:
        scheduler.close()
    found = pool.store.workers.get_worker(wallet)
    assert found is not None
    assert found.seen_at == 0.0


def test_a_lost_assignment_is_sent_again(pool: Pool) -> None:
    forgetful = pool.enrol(0, deaf={"worker.compute"})
    deal = pool.buy(trust=1)
    until("it has the task", lambda: pool.store.tasks.of_worker(forgetful.key.wallet))
    forgetful.deaf.clear()
    pool.await_status(deal, TaskStatus.COMPLETED, 30)
    assert len(pool.await_closed(deal)[0].replicates) == 1


def test_a_task_nobody_computes_is_claimed_and_stakes_are_unlocked(pool: Pool) -> None:
    deal = pool.buy(trust=1, category=TEST_CATEGORY)
    pool.await_status(deal, TaskStatus.FAILED, 40)
    (record,) = pool.await_closed(deal)
    assert record.stage is TaskStage.FAILED
    assert record.why is not None
    assert pool.locked() == UNLOCKED


def test_a_deal_matched_while_the_watcher_was_down_is_found(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool()
    pool.enrol(0)
    deal = pool.buy(trust=1)
    for name in PARTS:
        pool.start(name)
    pool.await_status(deal, TaskStatus.COMPLETED)


def test_a_rollback_that_takes_finalize_back_is_made_good(pool: Pool) -> None:
    pool.enrol(0)
    deal = pool.buy(trust=2)
    pool.await_status(deal, TaskStatus.COMPLETED)
    (record,) = pool.await_closed(deal)
    assert record.finalized_block is not None
    depth = pool.chain.hub.head() - record.finalized_block + 1
    replace_blocks(pool.chain.rpc, depth)
    pool.await_status(deal, TaskStatus.COMPLETED, 40)
    until("the record knows the new block", lambda: pool.task(record.task_id).stage is TaskStage.COMPLETED)
    assert pool.locked() == UNLOCKED


def test_a_node_frozen_for_a_while_only_delays(pool: Pool) -> None:
    pool.enrol(0)
    deal = pool.buy(trust=1, volume=4)
    until("one task is done", lambda: some_done(pool, deal, 1))
    with pool.chain_frozen(seconds=6.0):
        pass
    pool.await_status(deal, TaskStatus.COMPLETED, 60)
    assert len(pool.await_closed(deal)) == 4
