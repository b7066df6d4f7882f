"""A challenge that the secret service has lost, and the one that takes its place."""

from __future__ import annotations

from typing import Any

from pipeline.domain.records import Replicate, TaskRecord
from pipeline.store.client import Store
from pipeline.store.task.challenges import Awaited
from protocol.results.error_result import LOST_CHALLENGE
from protocol.types import Wallet
from protocol.wire import Mode, Step
from tests.integration.pipeline.rows import ALICE, BOB, NO_TAG, NOW
from tests.integration.pipeline.store.test_store import given_to

CHALLENGE, OTHER = Wallet("0x" + "c4" * 20), Wallet("0x" + "c5" * 20)


def found_lost(store: Store, **fields: Any) -> TaskRecord:
    """A task with a challenge, whose machine has found that the secret service does not have it."""
    task = given_to(store, ALICE, **{"holds_slot": False} | fields)
    store.challenges.record(task.task_id, CHALLENGE, NOW)
    store.tasks.record_report(task.task_id, ALICE, Step.FAILED, NOW + 5, f"{LOST_CHALLENGE}: why", None)
    (stored,) = store.tasks.load_tasks([task.task_id])
    assert (str(stored.challenge), stored.challenge_told_at) == (CHALLENGE, NOW)
    return stored


def test_another_challenge_takes_the_place_of_one_found_lost_and_its_machine_may_be_asked_anew(store: Store) -> None:
    task = found_lost(store)
    assert store.challenges.awaited([task.task_id]) == {task.task_id: Awaited(NO_TAG, 0.0)}
    store.challenges.record(task.task_id, OTHER, NOW + 6)
    (stored,) = store.tasks.load_tasks([task.task_id])
    assert (str(stored.challenge), stored.challenge_told_at, stored.replicates) == (OTHER, NOW + 6, ())
    assert store.challenges.awaited([task.task_id]) == {}


def test_a_challenge_that_is_told_again_stays_and_so_do_its_replicates(store: Store) -> None:
    task = found_lost(store)
    store.challenges.record(task.task_id, CHALLENGE, NOW + 6)
    (stored,) = store.tasks.load_tasks([task.task_id])
    assert (str(stored.challenge), stored.challenge_told_at, stored.replicates) == (CHALLENGE, NOW + 6, task.replicates)


def test_a_challenge_with_which_a_machine_is_at_work_or_holds_a_slot_stays(store: Store) -> None:
    holding = found_lost(store, holds_slot=True)
    store.challenges.record(holding.task_id, OTHER, NOW + 6)
    store.tasks.add_replicate(holding.task_id, Replicate(BOB, Mode.SOLO, 2, NOW))
    (stored,) = store.tasks.load_tasks([holding.task_id])
    assert (str(stored.challenge), len(stored.replicates)) == (CHALLENGE, 2)
