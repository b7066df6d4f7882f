from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.broker.relay import RelayEvent, proved_events, report_events, step_events, worker_event
from pipeline.domain.records import Replicate
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

WALLET = Wallet("0x" + "ab" * 20)
TASK = TaskId("0x" + "11" * 32)
NOW = 100.0


def replicate(mode: Mode = Mode.VOTE, **steps: float) -> Replicate:
    """One that was published at 90, asked to reveal at 95, with the times of its reports."""
    times = {Step[name.upper()]: at for name, at in steps.items()}
    return Replicate(WALLET, mode, 1, 90.0, published_at=90.0, steps=times, reveal_asked_at=95.0)


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
