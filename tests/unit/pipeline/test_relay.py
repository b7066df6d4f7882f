from __future__ import annotations

from pipeline.relay import RelayEvent, report_events, worker_event
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

WALLET = Wallet("0x" + "ab" * 20)
TASK = TaskId("0x" + "11" * 32)


def events(
    step: Step, *, mode: Mode = Mode.VOTE, started: float | None = None, cause: str | None = None
) -> list[RelayEvent]:
    return report_events(WALLET, TASK, mode, Report(step=step, cause=cause), started=started, now=100.0)


def kinds(step: Step, *, started: float | None = None) -> list[str]:
    return [event.kind for event in events(step, started=started)]


def test_every_event_carries_the_machines_name() -> None:
    assert {event.hostname for step in Step for event in events(step)} == {f"w.{WALLET}"}


def test_a_started_task_shows_as_received_and_started() -> None:
    assert kinds(Step.STARTED) == ["task-received", "task-started"]
    assert events(Step.STARTED)[0].fields["name"] == "worker.compute"


def test_a_computed_task_shows_how_long_it_took() -> None:
    (event,) = events(Step.COMPUTED, started=97.5)
    assert (event.kind, event.fields["runtime"]) == ("task-succeeded", 2.5)


def test_a_failed_task_shows_its_cause_even_if_it_never_started() -> None:
    assert kinds(Step.FAILED) == ["task-received", "task-started", "task-failed"]
    (event,) = events(Step.FAILED, started=1.0, cause="APP_IMAGE_DOWNLOAD_FAILED")
    assert event.fields["exception"] == "APP_IMAGE_DOWNLOAD_FAILED"


def test_steps_on_chain_show_as_tasks_of_their_own() -> None:
    names = {step: events(step)[0].fields["name"] for step in (Step.CONTRIBUTED, Step.REVEALED, Step.UPLOADED)}
    assert names == {
        Step.CONTRIBUTED: "worker.contribute",
        Step.REVEALED: "worker.reveal",
        Step.UPLOADED: "worker.upload",
    }
    assert kinds(Step.REVEALED) == ["task-received", "task-started", "task-succeeded"]


def test_the_only_transaction_of_a_trust_1_task_has_its_own_name() -> None:
    assert events(Step.CONTRIBUTED, mode=Mode.SOLO)[0].fields["name"] == "worker.contribute_and_finalize"


def test_a_step_keeps_its_id_so_that_a_repeated_report_is_the_same_row() -> None:
    assert events(Step.STARTED)[1].fields == events(Step.STARTED)[1].fields
    assert events(Step.STARTED)[1].fields["uuid"] == events(Step.COMPUTED)[0].fields["uuid"]
    assert events(Step.STARTED)[1].fields["uuid"] != events(Step.REVEALED)[1].fields["uuid"]


def test_a_heartbeat_outlives_one_lost_ping() -> None:
    event = worker_event("heartbeat", WALLET, ping_seconds=10.0, active=2, processed=0, now=5.0)
    assert (event.kind, event.fields["active"]) == ("worker-heartbeat", 2)
    assert event.fields["freq"] > 10.0
