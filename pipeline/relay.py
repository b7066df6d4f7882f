"""Flower's eyes on the worker machines: accepted reports become Celery events in vhost `core`.

Workers have no right to that vhost and Celery events carry no proof of who sent them. So only the API emits them, after
it has checked the sender, under the machine's name `w.<wallet>`:

login ──► worker-online       STARTED     ──► task-received, task-started      worker.compute
ping  ──► worker-heartbeat    COMPUTED    ──► task-succeeded                   worker.compute
ban   ──► worker-offline      FAILED      ──► task-failed                      worker.compute
                              CONTRIBUTED, REVEALED, UPLOADED ──► received, started, succeeded of that step

An event that cannot be sent is lost without harm: nothing decides by it.
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
from kombu import Producer
from kombu.clocks import LamportClock

from config import topology
from pipeline.background import Background
from pipeline.broker_link import BrokerLink
from protocol.types import TaskId, Wallet
from protocol.wire import Mode, Report, Step

#: Flower calls a machine offline after two periods without a heartbeat; one lost ping must not do that.
HEARTBEAT_PERIODS = 1.5
#: Namespace of our step ids, so that a repeated report updates the same row in Flower.
NAMESPACE = UUID("6f2a1f0e-5d0b-4c53-9d0f-1c3b7f4f6a51")
SOFTWARE_VERSION = version("sluice")
#: Transient: an event nobody listens to is worth no disk write.
TRANSIENT = 1


@dataclass(frozen=True, slots=True)
class RelayEvent:
    """One Celery event: its type, its machine, its fields. `timestamp` is Unix seconds."""

    kind: str
    hostname: str
    timestamp: float
    fields: dict[str, Any] = field(default_factory=dict)


def step_name(step: Step, mode: Mode) -> str:
    """The name of the Celery task on the machine that a report is about."""
    match step:
        case Step.STARTED | Step.COMPUTED | Step.FAILED:
            return "worker.compute"
        case Step.CONTRIBUTED:
            return "worker.contribute" if mode is Mode.VOTE else "worker.contribute_and_finalize"
        case Step.REVEALED:
            return "worker.reveal"
        case Step.UPLOADED:
            return "worker.upload"


def report_events(
    wallet: Wallet, task_id: TaskId, mode: Mode, report: Report, *, started: float | None, now: float
) -> list[RelayEvent]:
    """What one accepted report looks like to Flower. `started`: when this machine took the task up, Unix seconds."""
    name = step_name(report.step, mode)
    uuid = str(uuid5(NAMESPACE, f"{task_id}:{wallet}:{name}"))
    received: dict[str, Any] = {
        "uuid": uuid,
        "name": name,
        "args": f"('{task_id}',)",
        "kwargs": "{}",
        "retries": 0,
        "eta": None,
    }
    begin: list[tuple[str, dict[str, Any]]] = [("task-received", received), ("task-started", {"uuid": uuid})]
    runtime = max(0.0, now - started) if started is not None and name == "worker.compute" else 0.0
    success = ("task-succeeded", {"uuid": uuid, "result": f"'{task_id}'", "runtime": runtime})
    failure = ("task-failed", {"uuid": uuid, "exception": report.cause or "failed", "traceback": ""})
    parts: list[tuple[str, dict[str, Any]]]
    match report.step:
        case Step.STARTED:
            parts = begin
        case Step.COMPUTED:
            parts = [success]
        case Step.FAILED:
            parts = [failure] if started is not None else [*begin, failure]
        case _:
            parts = [*begin, success]
    machine = topology.compute_queue_name(wallet)
    return [RelayEvent(kind, machine, now, fields) for kind, fields in parts]


def worker_event(
    kind: str, wallet: Wallet, *, ping_seconds: float, active: int, processed: int, now: float
) -> RelayEvent:
    """`kind`: online, heartbeat or offline. `active` tasks at hand, `processed` since sign-in."""
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
    """Sends events through one long-lived connection, on its own thread; a failure reaches nobody but the log."""

    def __init__(self, app: Celery, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ticks = LamportClock()
        self._link = BrokerLink(app)
        self._background: Background[RelayEvent] = Background("relay", self._deliver)

    def worker(self, kind: str, wallet: Wallet, *, ping_seconds: float, active: int = 0, processed: int = 0) -> None:
        """A machine signed in (`online`), pinged (`heartbeat`) or was cut off (`offline`)."""
        event = worker_event(
            kind, wallet, ping_seconds=ping_seconds, active=active, processed=processed, now=self._clock()
        )
        self._background.put(event)

    def report(self, wallet: Wallet, task_id: TaskId, mode: Mode, report: Report, *, started: float | None) -> None:
        """A report was accepted."""
        self._background.put(*report_events(wallet, task_id, mode, report, started=started, now=self._clock()))

    def flush(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until all is sent; whether it is."""
        return self._background.flush(timeout)

    def stop(self, timeout: float = 2.0) -> None:
        """Send what is queued, within `timeout` seconds, and disconnect."""
        self._background.stop(timeout)
        self._link.close()

    def _deliver(self, events: Sequence[RelayEvent]) -> None:
        with self._link.producer() as producer:
            for event in events:
                self._publish(producer, event)

    def _publish(self, producer: Producer, event: RelayEvent) -> None:
        body = Event(
            event.kind,
            hostname=event.hostname,
            timestamp=event.timestamp,
            utcoffset=utcoffset(),
            pid=os.getpid(),
            clock=self._ticks.forward(),
            **event.fields,
        )
        producer.publish(
            body,
            exchange=event_exchange,
            declare=[event_exchange],
            routing_key=event.kind.replace("-", "."),
            headers={"hostname": event.hostname},
            serializer="json",
            delivery_mode=TRANSIENT,
        )
