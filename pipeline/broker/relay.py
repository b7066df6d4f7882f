"""Celery events about worker machines and tasks, sent into vhost `core` for Flower, `celery status` and the like.

Workers have no right to that vhost and Celery events carry no proof of who sent them. So only the scheduler sends them,
after it has checked who sent a report or read the chain, under the machine's name `w.<wallet>` or its own:

login ──► worker-online       assigned            ──► assign       succeeded     by the scheduler
ping  ──► worker-heartbeat    STARTED             ──► compute      received, started
ban   ──► worker-offline      COMPUTED, FAILED    ──► compute      succeeded, or failed with its cause
                              UPLOADED            ──► upload       received, started, succeeded
                              TaskContribute      ──► contribute, or contribute_and_finalize: the same
                              FAILED after that   ──► contribute …: failed with its cause
                              TaskReveal          ──► reveal       received, started, succeeded
                              TaskFinalize        ──► finalize     succeeded     by the scheduler
                              the task has failed ──► finalize     failed with its cause
                              LOST                ──► compute or contribute: failed; ABORTED: compute is revoked

A task's steps carry its id as their argument, and times from the scheduler's own records; those of a machine its own
name (`SLUICE_WORKER_NAME`) as the keyword argument `machine`. Events of EVENT_SECONDS go out in one message. An event
that cannot be sent is lost without harm, since no decision depends on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid5

from celery import Celery
from celery.events.event import Event, event_exchange
from celery.utils.time import utcoffset
from kombu.clocks import LamportClock

from config import topology
from config.celery_apps import EVENT_SECONDS, node_name
from pipeline.broker.background import Background
from pipeline.broker.link import BrokerLink
from pipeline.broker.machine_names import MachineNames
from pipeline.domain.actions import Count, Drop, Free
from pipeline.domain.records import Outcome, Replicate, ReplicateState
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

#: Flower calls a machine offline after two periods without a heartbeat; one lost ping must not do that.
HEARTBEAT_PERIODS = 1.5
#: Namespace of our step ids, so that a repeated report updates the same row in Flower.
NAMESPACE = UUID("6f2a1f0e-5d0b-4c53-9d0f-1c3b7f4f6a51")
SOFTWARE_VERSION = version("sluice")
#: Cause of a winner's step that was open when the task ended or was reopened.
WITHHELD = "It was asked for and did not come in time."
#: Cause of the step that a machine was running when the pool stopped hearing from it.
SILENT = "The machine went silent."
#: Routing key of several events in one message; Celery's receivers take those of every key.
_GROUP = "task.multi"
#: AMQP delivery mode of a message that is not written to disk.
TRANSIENT = 1


@dataclass(frozen=True, slots=True)
class RelayEvent:
    """One Celery event: its type, its machine, its fields. `timestamp` is Unix seconds."""

    kind: str
    hostname: str
    timestamp: float
    fields: dict[str, Any] = field(default_factory=dict)


def step_name(step: Step, mode: Mode) -> str:
    """The name in Flower of the step that a report is about."""
    match step:
        case Step.STARTED | Step.COMPUTED | Step.FAILED:
            return "compute"
        case Step.CONTRIBUTED:
            return "contribute" if mode is Mode.VOTE else "contribute_and_finalize"
        case Step.REVEALED:
            return "reveal"
        case Step.UPLOADED:
            return "upload"


def began(replicate: Replicate, step: Step) -> float | None:
    """When the machine could begin with the step that a report of `step` ends: Unix seconds, None if not recorded."""
    steps = replicate.steps
    match step:
        case Step.STARTED:
            return replicate.published_at
        case Step.COMPUTED | Step.FAILED:
            return steps.get(Step.STARTED)
        case Step.CONTRIBUTED:
            computed = steps.get(Step.COMPUTED)
            return computed if replicate.mode is Mode.VOTE else steps.get(Step.UPLOADED, computed)
        case Step.REVEALED:
            return replicate.reveal_asked_at
        case Step.UPLOADED:
            return replicate.upload_asked_at or steps.get(Step.COMPUTED)


def report_events(
    replicate: Replicate, task_id: TaskId, report: Report, now: float, *, called: str | None = None
) -> list[RelayEvent]:
    """The events of one accepted report. `replicate`: as it was before the report. `called`: the machine's own name."""
    # What fails with a result is not the computation.
    without_vote = report.step is Step.FAILED and Step.COMPUTED in replicate.steps
    step = Step.CONTRIBUTED if without_vote else report.step
    name, machine = step_name(step, replicate.mode), topology.compute_queue_name(replicate.wallet)
    since = began(replicate, step)
    if report.seconds is not None:
        # A report may overtake the one before it: then the machine knows better, but no step began before its task.
        measured = max(now - report.seconds, replicate.published_at or 0.0)
        since = measured if since is None else min(since, measured)
    match step:
        case Step.STARTED:
            return _begin(name, machine, task_id, now, called)
        case Step.COMPUTED | Step.FAILED:
            # What is over soon was not reported as begun.
            shown = Step.STARTED in replicate.steps
            begin = [] if shown else _begin(name, machine, task_id, now if since is None else min(since, now), called)
            # With a cause: the app, or what it needs, has failed, and the error is what this machine votes for.
            failed = report.step is Step.FAILED or report.cause is not None
            return [*begin, _end(name, machine, task_id, since, now, failure=_failure(report) if failed else None)]
        case _:
            failure = _failure(report) if without_vote else None
            return step_events(name, machine, task_id, since, now, called=called, failure=failure)


def proved_events(
    replicate: Replicate, task_id: TaskId, step: Step, now: float, *, called: str | None = None
) -> list[RelayEvent]:
    """The events of a step whose transaction is in a block, from when the machine could begin with it; if that was not
    recorded, since a report was lost or comes later, from what was recorded before. `called`: the machine's own name.
    """
    name, machine = step_name(step, replicate.mode), topology.compute_queue_name(replicate.wallet)
    before = replicate.steps.get(Step.CONTRIBUTED) if step is Step.REVEALED else None
    since = began(replicate, step) or before or replicate.steps.get(Step.STARTED) or replicate.published_at or None
    return step_events(name, machine, task_id, since, now, called=called)


def given_up_events(
    replicate: Replicate, task_id: TaskId, action: Drop | Free | Count, now: float, *, called: str | None = None
) -> list[RelayEvent]:
    """The events of a step that the pool no longer expects of a machine; none if no step is left open by the action.

    `replicate`: as it was before the action. `called`: the machine's own name.
    """
    machine, begun_at = topology.compute_queue_name(replicate.wallet), began(replicate, Step.COMPUTED)
    match action:
        case Drop(state=ReplicateState.LOST, why=why):
            since = begun_at or replicate.published_at or None
            return step_events("compute", machine, task_id, since, now, called=called, failure=why)
        case Free() if replicate.state is ReplicateState.LOST and Step.CONTRIBUTED not in replicate.steps:
            # Lost by the sweep, and not by a decision; where its result is known, what is missing is the vote.
            step = Step.CONTRIBUTED if Step.COMPUTED in replicate.steps else Step.COMPUTED
            since = began(replicate, step) or replicate.published_at or None
            name = step_name(step, replicate.mode)
            return step_events(name, machine, task_id, since, now, called=called, failure=SILENT)
        case Drop() if begun_at is not None and Step.COMPUTED not in replicate.steps:
            fields = {"uuid": _uuid("compute", machine, task_id), "terminated": True, "signum": None, "expired": False}
            return [RelayEvent("task-revoked", machine, now, fields)]
        case Free(outcome=Outcome.WITHHELD) | Count(outcome=Outcome.WITHHELD):
            step = Step.UPLOADED if Step.REVEALED in replicate.steps or replicate.mode is Mode.SOLO else Step.REVEALED
            since, name = began(replicate, step), step_name(step, replicate.mode)
            return step_events(name, machine, task_id, since, now, called=called, failure=WITHHELD)
        case _:
            return []


def _failure(report: Report) -> str:
    """Why a computation failed, as Flower shows it: the cause, and the app's exit code if there is one."""
    code = "" if report.exit_code is None else f" (exit code {report.exit_code})"
    return f"{report.cause or 'FAILED'}{code}"


def step_events(
    name: str,
    machine: str,
    task_id: TaskId,
    since: float | None,
    now: float,
    *,
    called: str | None = None,
    failure: str | None = None,
) -> list[RelayEvent]:
    """The events of a whole step that is over. `since`: when it began, Unix seconds. `failure`: why it failed."""
    began_at = now if since is None else min(since, now)
    ended = _end(name, machine, task_id, since, now, failure=failure)
    return [*_begin(name, machine, task_id, began_at, called), ended]


def _begin(name: str, machine: str, task_id: TaskId, at: float, called: str | None) -> list[RelayEvent]:
    """The events that a step was received and started, at a moment."""
    uuid = _uuid(name, machine, task_id)
    kwargs = repr({} if called is None else {"machine": called})
    received = {"uuid": uuid, "name": name, "args": f"('{task_id}',)", "kwargs": kwargs, "retries": 0, "eta": None}
    return [
        RelayEvent("task-received", machine, at, received),
        RelayEvent("task-started", machine, at, {"uuid": uuid}),
    ]


def _end(
    name: str, machine: str, task_id: TaskId, since: float | None, now: float, *, failure: str | None = None
) -> RelayEvent:
    """The event that a step succeeded, or failed with its cause."""
    runtime = 0.0 if since is None else max(0.0, now - since)
    fields = {"uuid": _uuid(name, machine, task_id), "runtime": runtime}
    if failure is not None:
        return RelayEvent("task-failed", machine, now, {**fields, "exception": failure, "traceback": ""})
    return RelayEvent("task-succeeded", machine, now, {**fields, "result": f"'{task_id}'"})


def _uuid(name: str, machine: str, task_id: TaskId) -> str:
    """A step's id in Flower, the same for the same step."""
    return str(uuid5(NAMESPACE, f"{task_id}:{machine}:{name}"))


def worker_event(
    kind: str, wallet: Wallet, *, ping_seconds: float, active: int, processed: int, now: float
) -> RelayEvent:
    """The Celery event for a worker machine: `kind` is online, heartbeat or offline.

    `active`: tasks that it has now; `processed`: tasks since its sign-in; `now`: Unix seconds.
    """
    fields = {
        "freq": ping_seconds * HEARTBEAT_PERIODS,
        "active": active,
        "processed": processed,
        "loadavg": [0.0, 0.0, 0.0],
        "sw_ident": "sluice",
        "sw_ver": SOFTWARE_VERSION,
        "sw_sys": "Linux",
    }
    return RelayEvent(f"worker-{kind}", topology.compute_queue_name(wallet), now, fields)


class Relay:
    """Sends events through one long-lived connection, on its own thread. A failure is logged, and not raised."""

    def __init__(
        self, app: Celery, names: MachineNames, host: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`names`: what machines call themselves. `host`: SLUICE_HOST_NAME."""
        self._clock = clock
        self._ticks = LamportClock()
        #: The scheduler's own name in Flower: that of its pipeline's Celery workers.
        self._nodename = node_name("pipeline", host)
        self._link = BrokerLink(app)
        self._names = names
        self._background: Background[RelayEvent] = Background("relay", self._deliver, gather=EVENT_SECONDS)

    def worker(
        self,
        kind: str,
        wallet: Wallet,
        *,
        ping_seconds: float,
        active: int = 0,
        processed: int = 0,
        called: str | None = None,
    ) -> None:
        """Send Flower the event that a machine signed in (`online`), pinged (`heartbeat`) or was cut off (`offline`).
        `called`: its own name.
        """
        if called is not None:
            self._names.learn({wallet: called})
        event = worker_event(
            kind, wallet, ping_seconds=ping_seconds, active=active, processed=processed, now=self._clock()
        )
        self._background.put(event)

    def report(self, replicate: Replicate, task_id: TaskId, report: Report) -> None:
        """Send Flower the events of an accepted report. `replicate`: as it was before the report."""
        called = self._names.of([replicate.wallet]).get(replicate.wallet)
        self._background.put(*report_events(replicate, task_id, report, self._clock(), called=called))

    def decided(
        self,
        proved: Sequence[tuple[Replicate, TaskId, Step]],
        given_up: Sequence[tuple[Replicate, TaskId, Drop | Free | Count]],
    ) -> None:
        """Send Flower the events of steps whose transactions the chain shows, and of those that the pool no longer
        expects.
        """
        names, now = self._names.of([item.wallet for item, _, _ in (*proved, *given_up)]), self._clock()
        for item, task_id, step in proved:
            self._background.put(*proved_events(item, task_id, step, now, called=names.get(item.wallet)))
        for item, task_id, action in given_up:
            self._background.put(*given_up_events(item, task_id, action, now, called=names.get(item.wallet)))

    def step(self, name: str, task_id: TaskId, since: float | None, *, failure: str | None = None) -> None:
        """Send Flower the events of a step that the scheduler itself has done, begun at `since` (Unix seconds).
        `failure`: why it could not be done.
        """
        self._background.put(*step_events(name, self._nodename, task_id, since, self._clock(), failure=failure))

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all queued events are sent; returns whether they are."""
        return self._background.flush(timeout)

    def stop(self, timeout: float = 2.0) -> None:
        """Send what is queued, within `timeout` seconds, and disconnect."""
        self._background.stop(timeout)
        self._link.close()

    def _deliver(self, events: Sequence[RelayEvent]) -> None:
        """Publish events, all in one message. Raises BrokerUnavailable."""
        bodies = [self._body(event) for event in events]
        with self._link.producer() as producer:
            # One message for all, as Celery groups its own events.
            producer.publish(
                bodies,
                exchange=event_exchange,
                declare=[event_exchange],
                routing_key=_GROUP,
                serializer="json",
                delivery_mode=TRANSIENT,
            )

    def _body(self, event: RelayEvent) -> dict[str, Any]:
        """An event as Celery's receivers read it."""
        body: dict[str, Any] = Event(
            event.kind,
            hostname=event.hostname,
            timestamp=event.timestamp,
            utcoffset=utcoffset(),
            pid=os.getpid(),
            clock=self._ticks.forward(),
            **event.fields,
        )
        return body
