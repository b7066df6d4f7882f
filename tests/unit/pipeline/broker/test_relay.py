"""Flower's events from machines' reports and the chain: names, times, failures."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import replace

import pytest
from celery import Celery
from celery.events.event import event_exchange
from hypothesis import given
from hypothesis import strategies as st
from kombu import Queue
from pymongo.errors import PyMongoError

from pipeline.broker.machine_names import KEPT_SECONDS, MachineNames
from pipeline.broker.relay import (
    SILENT,
    WITHHELD,
    Relay,
    RelayEvent,
    given_up_events,
    proved_events,
    report_events,
    step_events,
    worker_event,
)
from pipeline.domain.actions import Count, Drop, Free
from pipeline.domain.records import Outcome, Replicate, ReplicateState
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

WALLET = Wallet("0x" + "ab" * 20)
TASK = TaskId("0x" + "11" * 32)
NOW = 100.0


def replicate(mode: Mode = Mode.VOTE, **steps: float) -> Replicate:
    """One that was published at 90, asked to reveal at 95, with the times of its reports."""
    times = {Step[name.upper()]: at for name, at in steps.items()}
    return Replicate(WALLET, mode, 1, 90.0, published_at=90.0, steps=times, reveal_asked_at=95.0)


def lost(**steps: float) -> Replicate:
    """One whose machine the sweep found silent."""
    return replace(replicate(Mode.VOTE, **steps), state=ReplicateState.LOST)


def events(step: Step, of: Replicate | None = None, cause: str | None = None) -> list[RelayEvent]:
    return report_events(of or replicate(), TASK, Report(step=step, cause=cause), NOW)


def kinds(found: list[RelayEvent]) -> list[str]:
    return [event.kind for event in found]


def test_every_event_carries_the_machines_name() -> None:
    assert {event.hostname for step in Step for event in events(step)} == {f"w.{WALLET}"}


def test_a_started_task_shows_as_received_and_started_with_its_id() -> None:
    received, started = events(Step.STARTED)

    assert kinds([received, started]) == ["task-received", "task-started"]
    assert (received.fields["name"], received.fields["args"]) == ("compute", f"('{TASK}',)")


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.COMPUTED])
def test_each_step_shows_what_the_machine_calls_itself(step: Step) -> None:
    received, *_ = report_events(replicate(), TASK, Report(step=step), NOW, called="alpha's {name}")

    assert ast.literal_eval(received.fields["kwargs"]) == {"machine": "alpha's {name}"}


def test_a_computed_task_shows_how_long_it_took() -> None:
    (event,) = events(Step.COMPUTED, replicate(started=97.5))

    assert (event.kind, event.fields["runtime"]) == ("task-succeeded", 2.5)


def test_a_computed_task_whose_start_was_not_reported_shows_as_received_and_started_when_it_was() -> None:
    found = report_events(replicate(), TASK, Report(step=Step.COMPUTED, seconds=1.5), NOW, called="alpha")

    assert kinds(found) == ["task-received", "task-started", "task-succeeded"]
    assert (found[1].timestamp, found[2].fields["runtime"]) == (98.5, 1.5)
    assert ast.literal_eval(found[0].fields["kwargs"]) == {"machine": "alpha"}


def test_a_failed_task_shows_its_cause_even_if_it_never_started() -> None:
    assert kinds(events(Step.FAILED)) == ["task-received", "task-started", "task-failed"]

    (event,) = events(Step.FAILED, replicate(started=1.0), cause="APP_IMAGE_DOWNLOAD_FAILED")

    assert event.fields["exception"] == "APP_IMAGE_DOWNLOAD_FAILED"


@pytest.mark.parametrize(
    ("step", "of", "name", "seconds"),
    [
        (Step.CONTRIBUTED, replicate(computed=92.0), "contribute", 8.0),
        (Step.REVEALED, replicate(), "reveal", 5.0),
        (Step.UPLOADED, replicate(Mode.SOLO, computed=91.0), "upload", 9.0),
        (Step.CONTRIBUTED, replicate(Mode.SOLO, computed=91.0, uploaded=96.0), "contribute_and_finalize", 4.0),
    ],
)
def test_each_step_on_chain_is_a_task_of_its_own_from_when_it_could_begin(
    step: Step, of: Replicate, name: str, seconds: float
) -> None:
    received, started, succeeded = events(step, of)

    assert kinds([received, started, succeeded]) == ["task-received", "task-started", "task-succeeded"]
    assert received.fields["name"] == name
    assert (started.timestamp, succeeded.timestamp) == (NOW - seconds, NOW)
    assert succeeded.fields["runtime"] == seconds


def test_every_step_of_a_machine_shows_what_it_calls_itself_those_that_the_chain_shows_too() -> None:
    asked: list[Collection[Wallet]] = []

    def read(wallets: Collection[Wallet]) -> dict[Wallet, str]:
        asked.append(wallets)
        return dict.fromkeys(wallets, "alpha")

    app = Celery("test", broker="memory://")
    relay, done = Relay(app, MachineNames(read)), replicate(computed=92.0)
    with app.connection_for_read() as connection:
        queue = Queue("heard", event_exchange, routing_key="#", channel=connection.default_channel)
        queue.declare()
        relay.decided(
            [(done, TASK, Step.CONTRIBUTED), (done, TASK, Step.REVEALED)],
            [(done, TASK, Free(WALLET, Outcome.WITHHELD))],
        )
        relay.report(done, TASK, Report(step=Step.UPLOADED))
        relay.stop()
        events = [event for message in iter(queue.get, None) for event in message.payload]

    received = [event for event in events if event["type"] == "task-received"]
    assert [event["name"] for event in received] == ["contribute", "reveal", "reveal", "upload"]
    assert {event["kwargs"] for event in received} == {repr({"machine": "alpha"})}
    assert asked == [[WALLET]], "read once"


def test_a_machines_name_is_read_again_after_a_while_and_kept_while_the_store_does_not_answer() -> None:
    answers: Iterator[dict[Wallet, str] | PyMongoError] = iter(
        [{WALLET: "alpha"}, PyMongoError("away"), {WALLET: "beta"}]
    )
    now = [0.0]

    def read(_: Collection[Wallet]) -> dict[Wallet, str]:
        answer = next(answers)
        if isinstance(answer, PyMongoError):
            raise answer
        return answer

    names = MachineNames(read, lambda: now[0])
    found = [names.of([WALLET]), names.of([WALLET])]
    now[0] += KEPT_SECONDS + 1
    found += [names.of([WALLET]), names.of([WALLET])]

    assert [each[WALLET] for each in found] == ["alpha", "alpha", "alpha", "beta"]


def test_what_fails_with_a_result_is_the_vote_and_not_the_computation() -> None:
    report = Report(step=Step.FAILED, cause="reverted")
    vote = report_events(replicate(started=91.0, computed=92.0), TASK, report, NOW)
    alone = report_events(replicate(Mode.SOLO, started=91.0, computed=92.0, uploaded=96.0), TASK, report, NOW)

    assert [(found[0].fields["name"], found[-1].kind, found[-1].fields["runtime"]) for found in (vote, alone)] == [
        ("contribute", "task-failed", 8.0),
        ("contribute_and_finalize", "task-failed", 4.0),
    ]
    assert vote[-1].fields["exception"] == "reverted"


@pytest.mark.parametrize(
    ("action", "of", "shown"),
    [
        (Drop(WALLET, ReplicateState.LOST, "Silent."), replicate(started=91.0), ("compute", "Silent.", 9.0)),
        (Drop(WALLET, ReplicateState.LOST, "Silent."), replicate(), ("compute", "Silent.", 10.0)),
        (Free(WALLET, Outcome.WITHHELD), replicate(contributed=92.0), ("reveal", WITHHELD, 5.0)),
        (Count(WALLET, Outcome.WITHHELD), replicate(computed=91.0, revealed=96.0), ("upload", WITHHELD, 9.0)),
        (Free(WALLET, Outcome.VOTED), replicate(contributed=92.0), None),
        (Free(WALLET), lost(started=91.0), ("compute", SILENT, 9.0)),
        (Free(WALLET), lost(started=91.0, computed=96.0), ("contribute", SILENT, 4.0)),
        (Free(WALLET), lost(computed=91.0, contributed=92.0), None),
    ],
)
def test_a_step_that_did_not_come_in_time_is_a_failure_with_its_cause(
    action: Drop | Free | Count, of: Replicate, shown: tuple[str, str, float] | None
) -> None:
    found = given_up_events(of, TASK, action, NOW)

    if shown is None:
        assert not found
        return
    name, cause, seconds = shown
    assert kinds(found) == ["task-received", "task-started", "task-failed"]
    assert (found[0].fields["name"], found[-1].fields["exception"]) == (name, cause)
    assert found[-1].fields["runtime"] == seconds


def test_a_computation_that_is_not_needed_any_more_is_revoked_and_one_that_was_done_stays_so() -> None:
    drop = Drop(WALLET, ReplicateState.ABORTED, "The task ended without it.")
    begun, done = replicate(started=91.0), replicate(started=91.0, computed=92.0)

    (event,) = given_up_events(begun, TASK, drop, NOW)
    assert (event.kind, event.fields["uuid"]) == ("task-revoked", events(Step.STARTED)[0].fields["uuid"])
    assert not given_up_events(done, TASK, drop, NOW)
    assert not given_up_events(replicate(), TASK, drop, NOW)


def test_a_step_that_the_chain_shows_before_its_reports_came_took_the_time_since_the_task_was_given_out() -> None:
    assert proved_events(replicate(), TASK, Step.CONTRIBUTED, NOW)[-1].fields["runtime"] == 10.0
    assert proved_events(replicate(started=94.0), TASK, Step.CONTRIBUTED, NOW)[-1].fields["runtime"] == 6.0


@pytest.mark.parametrize(
    ("step", "of", "name", "seconds"),
    [
        (Step.CONTRIBUTED, replicate(computed=92.0), "contribute", 8.0),
        (Step.CONTRIBUTED, replicate(Mode.SOLO, uploaded=96.0), "contribute_and_finalize", 4.0),
        (Step.REVEALED, replicate(), "reveal", 5.0),
    ],
)
def test_what_the_chain_shows_of_a_machine_is_shown_as_if_it_had_been_reported(
    step: Step, of: Replicate, name: str, seconds: float
) -> None:
    found = proved_events(of, TASK, step, NOW)

    assert found == events(step, of)
    assert (found[0].fields["name"], found[-1].fields["runtime"]) == (name, seconds)


def test_a_report_that_overtakes_the_one_before_it_tells_itself_how_long_its_step_took() -> None:
    overtaken, at_once = replicate(), replicate(computed=NOW)
    for of in (overtaken, at_once):
        report = Report(step=Step.CONTRIBUTED, seconds=1.5)
        assert report_events(of, TASK, report, NOW)[-1].fields["runtime"] == 1.5
    uploaded = Report(step=Step.UPLOADED, seconds=0.5)
    assert report_events(overtaken, TASK, uploaded, NOW)[-1].fields["runtime"] == 0.5


def test_an_app_that_failed_is_a_failure_with_its_cause_though_the_machine_votes_for_the_error() -> None:
    report = Report(step=Step.COMPUTED, cause="APP_COMPUTE_FAILED", exit_code=1)

    (event,) = report_events(replicate(started=97.5), TASK, report, NOW)

    assert (event.kind, event.fields["runtime"]) == ("task-failed", 2.5)
    assert event.fields["exception"] == "APP_COMPUTE_FAILED (exit code 1)"


@given(st.floats(min_value=0, max_value=1e9))
def test_no_machine_shows_a_step_as_begun_before_its_task_was_given_out(seconds: float) -> None:
    started = report_events(replicate(), TASK, Report(step=Step.CONTRIBUTED, seconds=seconds), NOW)[1]
    assert 90.0 <= started.timestamp <= NOW


def test_a_step_of_the_scheduler_shows_under_its_own_name() -> None:
    received, _, succeeded = step_events("finalize", "pipeline@host", TASK, 98.0, NOW)

    assert (received.hostname, received.fields["name"], succeeded.fields["runtime"]) == ("pipeline@host", "finalize", 2)


def test_a_step_that_seems_to_begin_in_the_future_took_no_time() -> None:
    received, _, succeeded = step_events("assign", "pipeline@host", TASK, NOW + 5, NOW)

    assert (received.timestamp, succeeded.fields["runtime"]) == (NOW, 0.0)


def test_a_step_keeps_its_id_so_that_a_repeated_report_is_the_same_row() -> None:
    assert events(Step.STARTED)[1].fields == events(Step.STARTED)[1].fields
    assert events(Step.STARTED)[1].fields["uuid"] == events(Step.COMPUTED)[0].fields["uuid"]
    assert events(Step.STARTED)[1].fields["uuid"] != events(Step.REVEALED)[1].fields["uuid"]


def test_a_heartbeat_outlives_one_lost_ping() -> None:
    event = worker_event("heartbeat", WALLET, ping_seconds=10.0, active=2, processed=0, now=5.0)
    assert (event.kind, event.fields["active"]) == ("worker-heartbeat", 2)
    assert event.fields["freq"] > 10.0
