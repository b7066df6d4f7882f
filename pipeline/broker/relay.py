"""Celery events about worker machines and tasks, sent into vhost `core` for Flower, `celery status` and the like.

Workers have no right to that vhost and Celery events carry no proof of who sent them. So only the scheduler sends them,
after it has checked who sent a report or read the chain, under the machine's name `w.<wallet>` or its own:

login ──► worker-online       assigned            ──► assign       succeeded     by the scheduler
ping  ──► worker-heartbeat    STARTED             ──► compute      received, started
ban   ──► worker-offline      COMPUTED, FAILED    ──► compute      succeeded, or failed with its cause
                              UPLOADED            ──► upload       received, started, succeeded
                              TaskContribute      ──► contribute, or contribute_and_finalize: the same
                              TaskReveal          ──► reveal       the same
                              TaskFinalize        ──► finalize     succeeded     by the scheduler

A task's steps carry its id as their argument, and times from the scheduler's own records; those that a machine reported
its own name (`SLUICE_WORKER_NAME`) as the keyword argument `machine`. Events of EVENT_SECONDS go out in one message. An
event that cannot be sent is lost without harm, since no decision depends on it.
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
from pipeline.domain.records import Replicate
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

#: Flower calls a machine offline after two periods without a heartbeat; one lost ping must not do that.
HEARTBEAT_PERIODS = 1.5
#: Namespace of our step ids, so that a repeated report updates the same row in Flower.
NAMESPACE = UUID("6f2a1f0e-5d0b-4c53-9d0f-1c3b7f4f6a51")
SOFTWARE_VERSION = version("sluice")
#: Machines whose names are kept: as many as Flower keeps.
MOST_NAMES = 10_000
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
    """The name of the step that a report is about."""
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
            return steps.get(Step.COMPUTED) if replicate.mode is Mode.VOTE else steps.get(Step.UPLOADED)
        case Step.REVEALED:
            return replicate.reveal_asked_at
        case Step.UPLOADED:
            return replicate.upload_asked_at or steps.get(Step.COMPUTED)


def report_events(
    replicate: Replicate, task_id: TaskId, report: Report, now: float, *, called: str | None = None
) -> list[RelayEvent]:
    """The events of one accepted report. `replicate`: as it was before the report. `called`: the machine's own name."""
    name, machine = step_name(report.step, replicate.mode), topology.compute_queue_name(replicate.wallet)
    since = began(replicate, report.step)
    if report.seconds is not None:
        # A report may overtake the one before it: then the machine knows better, but no step began before its task.
        measured = max(now - report.seconds, replicate.published_at or 0.0)
        since = measured if since is None else min(since, measured)
    match report.step:
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
            return step_events(name, machine, task_id, since, now, called=called)


def proved_events(replicate: Replicate, task_id: TaskId, step: Step, now: float) -> list[RelayEvent]:
    """The events of a step whose transaction is in a block, from when the machine could begin with it."""
    name, machine = step_name(step, replicate.mode), topology.compute_queue_name(replicate.wallet)
    return step_events(name, machine, task_id, began(replicate, step), now)


def _failure(report: Report) -> str:
    """Why a computation failed, as Flower shows it: the cause, and the app's exit code if there is one."""
    code = "" if report.exit_code is None else f" (exit code {report.exit_code})"
    return f"{report.cause or 'FAILED'}{code}"


def step_events(
    name: str, machine: str, task_id: TaskId, since: float | None, now: float, *, called: str | None = None
) -> list[RelayEvent]:
    """The events of a whole step that is over. `since`: when it began, Unix seconds."""
    began_at = now if since is None else min(since, now)
    return [*_begin(name, machine, task_id, began_at, called), _end(name, machine, task_id, since, now)]


def _begin(name: str, machine: str, task_id: TaskId, at: float, called: str | None) -> list[RelayEvent]:
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
    runtime = 0.0 if since is None else max(0.0, now - since)
    fields = {"uuid": _uuid(name, machine, task_id), "runtime": runtime}
    if failure is not None:
        return RelayEvent("task-failed", machine, now, {**fields, "exception": failure, "traceback": ""})
    return RelayEvent("task-succeeded", machine, now, {**fields, "result": f"'{task_id}'"})


def _uuid(name: str, machine: str, task_id: TaskId) -> str:
    return str(uuid5(NAMESPACE, f"{task_id}:{machine}:{name}"))


def worker_event(
    kind: str, wallet: Wallet, *, ping_seconds: float, active: int, processed: int, now: float
) -> RelayEvent:
    """The Celery event that a worker machine is online, still there (heartbeat) or offline, as `kind` names it.

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

    def __init__(self, app: Celery, host: str | None = None, clock: Callable[[], float] = time.time) -> None:
        """`host`: SLUICE_HOST_NAME."""
        self._clock = clock
        self._ticks = LamportClock()
        #: The scheduler's own name in Flower: that of its pipeline's Celery workers.
        self._nodename = node_name("pipeline", host)
        self._link = BrokerLink(app)
        #: What machines call themselves, by wallet; after a restart learned anew with each one's next ping.
        self._names: dict[Wallet, str] = {}
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
        """Send that a machine signed in (`online`), pinged (`heartbeat`) or was cut off (`offline`). `called`: its own
        name.
        """
        if called is not None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            self._names[wallet] = called
        event = worker_event(
            kind, wallet, ping_seconds=ping_seconds, active=active, processed=processed, now=self._clock()
        )
        self._background.put(event)

    def report(self, replicate: Replicate, task_id: TaskId, report: Report) -> None:
        """Send the events of an accepted report. `replicate`: as it was before the report."""
        called = self._names.get(replicate.wallet)
        self._background.put(*report_events(replicate, task_id, report, self._clock(), called=called))

    def proved(self, replicate: Replicate, task_id: TaskId, step: Step) -> None:
        """Send that the chain shows a machine's transaction."""
        self._background.put(*proved_events(replicate, task_id, step, self._clock()))

    def step(self, name: str, task_id: TaskId, since: float | None) -> None:
        """Send that the scheduler itself has done a step of a task, begun at `since` (Unix seconds)."""
        self._background.put(*step_events(name, self._nodename, task_id, since, self._clock()))

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all queued events are sent; returns whether they are."""
        return self._background.flush(timeout)

    def stop(self, timeout: float = 2.0) -> None:
        """Send what is queued, within `timeout` seconds, and disconnect."""
        self._background.stop(timeout)
        self._link.close()

    def _deliver(self, events: Sequence[RelayEvent]) -> None:
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
