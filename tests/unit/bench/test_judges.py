"""Each benchmark that promises something fails, in words, when it does not hold, and does not when all holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bench import blackout, cluster, takeover
from bench.blackout import State
from bench.crowds import connected, hostile, workerdrop
from protocol.poco.view import ChainView, TaskStatus
from tests.unit.pipeline.builders import TASK

Judge = Callable[[Mapping[str, Any]], Iterator[str]]

ADOPTED = {
    "of": 50,
    "ended": {"COMPLETED": 50},
    "stake_locked": 0,
    "nonce_gaps": 0,
    "database_differs": 0,
    "paid_twice": [],
    "not_paid": [],
    "audit": [],
    "audit_not_asked": [],
}
BLACKED_OUT = {
    "of": 200,
    "open": 190,
    "blocks": blackout.MOST_BLOCKS,
    "still": 0,
    "completed": 200,
    "stake_locked": 0,
    "nonce_gaps": 0,
    "database_differs": 0,
    "paid_twice": [],
}
AMONG_STRANGERS = {
    "tasks": 60,
    "completed": 60,
    "wrong_results": 0,
    "honest_stake_lost": 0,
    "honest_stake_locked": 0,
    "ratio": hostile.MOST_RATIO,
}
STRUCK = {
    "member": "mongodb-1",
    "fault": "kill",
    "tasks": 50,
    "completed": 50,
    "extra_seconds": cluster.EXTRA_SECONDS,
    "stake_locked": 0,
    "nonce_gaps": 0,
}
CAME_AND_WENT = {
    "tasks": 40,
    "completed": 40,
    "lost_wake_ups": 0,
    "refused": 0,
    "assign_p95_ms": workerdrop.MOST_ASSIGN_P95_MS,
}
RESTARTED = {"case": "restarted", "machines": 2000, **connected.MOST, **connected.LEAST}

GOOD: list[tuple[Judge, Mapping[str, Any]]] = [
    (takeover.broken, ADOPTED),
    (hostile.broken, AMONG_STRANGERS),
    (blackout.broken, BLACKED_OUT),
    (cluster.broken, STRUCK),
    (workerdrop.broken, CAME_AND_WENT),
    (connected.broken, RESTARTED),
    (connected.broken, {"case": "connected", "machines": 2000}),
]
BAD: list[tuple[Judge, Mapping[str, Any], Mapping[str, Any], str]] = [
    (takeover.broken, ADOPTED, {"ended": {"COMPLETED": 49, "FAILED": 1}}, "49 of 50 tasks are COMPLETED."),
    (takeover.broken, ADOPTED, {"stake_locked": 30}, "stake_locked: 30, not 0."),
    (takeover.broken, ADOPTED, {"nonce_gaps": 1}, "nonce_gaps: 1, not 0."),
    (takeover.broken, ADOPTED, {"database_differs": 2}, "database_differs: 2, not 0."),
    (takeover.broken, ADOPTED, {"paid_twice": ["Task 1 was finalized 2 times."]}, "Task 1 was finalized 2 times."),
    (takeover.broken, ADOPTED, {"not_paid": ["Nobody was paid."]}, "Nobody was paid."),
    (takeover.broken, ADOPTED, {"audit": ["lost_task 0x1: is gone"]}, "sluice audit: lost_task 0x1: is gone"),
    (
        takeover.broken,
        ADOPTED,
        {"audit_not_asked": [{"what": "IPFS", "why": "it is away"}]},
        "sluice audit could not ask IPFS: it is away",
    ),
    (blackout.broken, BLACKED_OUT, {"blocks": None, "still": 2}, "2 of 190 tasks have not gone on after 3 blocks."),
    (blackout.broken, BLACKED_OUT, {"completed": 199}, "199 of 200 tasks are COMPLETED."),
    (blackout.broken, BLACKED_OUT, {"stake_locked": 30}, "stake_locked: 30, not 0."),
    (blackout.broken, BLACKED_OUT, {"nonce_gaps": 1}, "nonce_gaps: 1, not 0."),
    (blackout.broken, BLACKED_OUT, {"database_differs": 1}, "database_differs: 1, not 0."),
    (blackout.broken, BLACKED_OUT, {"paid_twice": ["Task 1 was finalized 2 times."]}, "finalized 2 times"),
    (hostile.broken, AMONG_STRANGERS, {"completed": 59}, "59 of 60 tasks are COMPLETED."),
    (hostile.broken, AMONG_STRANGERS, {"wrong_results": 1}, "wrong_results: 1, not 0."),
    (hostile.broken, AMONG_STRANGERS, {"honest_stake_lost": 5}, "honest_stake_lost: 5, not 0."),
    (hostile.broken, AMONG_STRANGERS, {"honest_stake_locked": 5}, "honest_stake_locked: 5, not 0."),
    (
        hostile.broken,
        AMONG_STRANGERS,
        {"ratio": 2.01},
        "The deals took 2.01 times the undisturbed seconds, more than 2.",
    ),
    (cluster.broken, STRUCK, {"completed": 48}, "kill of mongodb-1: 48 of 50 tasks are COMPLETED."),
    (cluster.broken, STRUCK, {"extra_seconds": 15.1}, "kill of mongodb-1: 15.1 s longer, more than 15."),
    (cluster.broken, STRUCK, {"stake_locked": 30}, "kill of mongodb-1: stake_locked: 30, not 0."),
    (cluster.broken, STRUCK, {"nonce_gaps": 1}, "kill of mongodb-1: nonce_gaps: 1, not 0."),
    (workerdrop.broken, CAME_AND_WENT, {"completed": 39}, "39 of 40 tasks are COMPLETED."),
    (workerdrop.broken, CAME_AND_WENT, {"lost_wake_ups": 1}, "1 machines were never told of a task"),
    (workerdrop.broken, CAME_AND_WENT, {"refused": 3}, "3 sign-ins were refused."),
    (workerdrop.broken, CAME_AND_WENT, {"assign_p95_ms": None}, "No machine was told of a task."),
    (workerdrop.broken, CAME_AND_WENT, {"assign_p95_ms": 1e6}, "assign: 95 % took up to 1e+06 ms"),
    *(
        (connected.broken, RESTARTED, {name: most + 1}, f"restarted: {name}: {most + 1:g}, more than {most:g}.")
        for name, most in connected.MOST.items()
    ),
    *(
        (connected.broken, RESTARTED, {name: least - 1}, f"restarted: {name}: {least - 1:g}, less than {least:g}.")
        for name, least in connected.LEAST.items()
    ),
]


@pytest.mark.parametrize(("judge", "figures"), GOOD)
def test_figures_at_their_limits_break_no_promise(judge: Judge, figures: Mapping[str, Any]) -> None:
    assert list(judge(figures)) == []


@pytest.mark.parametrize(("judge", "good", "change", "words"), BAD)
def test_each_broken_promise_is_said_in_words(
    judge: Judge, good: Mapping[str, Any], change: Mapping[str, Any], words: str
) -> None:
    (said,) = judge({**good, **change})
    assert words in said


def test_on_a_machine_that_others_use_times_are_not_judged_and_all_else_is() -> None:
    slow = CAME_AND_WENT | {"assign_p95_ms": 1e6}
    assert list(workerdrop.broken(slow, any_speed=True)) == []
    assert list(workerdrop.broken(slow | {"lost_wake_ups": 1}, any_speed=True))


def test_a_task_that_a_machine_was_at_must_have_changed_and_one_that_waits_must_only_be_initialized() -> None:
    active, unset = ChainView(TASK, TaskStatus.ACTIVE), ChainView(TASK)
    given, waiting = State(3, True, active), State(3, False, active)
    assert not given.gone_on(given)
    assert replace(given, version=4).gone_on(given)
    assert replace(given, view=replace(active, status=TaskStatus.COMPLETED)).gone_on(given)
    assert waiting.gone_on(waiting)
    assert not State(3, False, unset).gone_on(State(3, False, unset))
    assert not State(None, False, active).gone_on(State(None, False, active))
