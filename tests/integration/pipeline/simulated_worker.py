"""A worker machine driven by the test: it reads its real queues and votes on the real chain, but runs no container."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer
from kombu.message import Message

from chain.contracts.hub import Hub
from chain.lane.model.intent import UNENDED, Intent
from chain.lane.rules.poco import poco_lane
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import Rpc
from config import topology
from config.celery_apps import core_app
from config.settings import Settings
from pipeline.broker.notify import Notifier
from pipeline.domain.decide import frees_slot
from pipeline.store.client import Store
from protocol.errors import RpcUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.poco.seal import result_hash, result_seal
from protocol.types import Hash32, TaskId, Wallet
from protocol.wire import Assignment, Mode, ResultLink, Step
from tests.waiting import ample

LINK = ResultLink(storage="ipfs", location="/ipfs/QmResult")
#: What a machine does by itself on an assignment.
ASSIGNED = {
    Mode.VOTE: ("worker.compute", "worker.contribute"),
    Mode.SOLO: ("worker.compute", "worker.upload", "worker.contribute_and_finalize"),
}
#: Seconds between looks at the lane while it has something to do.
TICK = 0.05


@dataclass
class SimulatedWorker:
    """One machine. `digest`: what it computes; `deaf`: messages it swallows; `seen`: (message, task) it got; `votes`:
    whether it votes by `contribute` also where it is to finalize alone.
    """

    key: Key
    settings: Settings
    scheduler: Wallet
    home: Path
    digest: Callable[[Assignment], Hash32]
    deaf: set[str] = field(default_factory=set)
    votes: bool = False
    seen: list[tuple[str, str]] = field(default_factory=list)
    jobs: dict[str, Assignment] = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        assert self.settings.hub
        self.rpc = Rpc(self.settings.rpc_url, ample(2.0))
        self.hub = Hub(self.rpc, self.settings.hub)  # type: ignore[arg-type]  # an address by the settings' pattern
        self.lane = poco_lane(self.settings, self.rpc, self.key, SqliteStore(self.home / f"{self.key.wallet}.db"))
        self.store = Store.open(self.settings)
        self.notifier = Notifier(core_app(self.settings, self.scheduler), self.scheduler)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(ample(10))
        self.rpc.close()
        self.notifier.close()

    def asked(self, name: str) -> list[str]:
        """Tasks that came with this message."""
        return [task for message, task in self.seen if message == name]

    # -- its life --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        url = f"{self.settings.amqp_url.get_secret_value()}/{self.settings.amqp_pool_vhost}"
        queues = topology.worker_queues(self.key.wallet)
        with Connection(url) as connection, Consumer(connection, queues=list(queues), on_message=self._on_message):
            while not self._stop.is_set():
                try:
                    connection.drain_events(timeout=TICK)
                except TimeoutError:
                    self._tick()
                except RpcUnavailable:
                    # The message comes again when the connection is opened anew; a lane's work is in its store.
                    continue

    def _tick(self) -> None:
        self.store.workers.mark_seen(self.key.wallet, self.clock())
        if self.lane.context.store.count(self.lane.id, UNENDED):
            self.lane.run()

    def _on_message(self, message: Message) -> None:
        args, _, embed = json.loads(message.body or "")
        assert not any(embed.values()), "a worker may publish nothing, so no message asks it to"
        subject: Any = args[0]
        asked = message.headers["task"]
        for name in ASSIGNED[Mode.VOTE if self.votes else subject["mode"]] if asked == topology.COMPUTE else (asked,):
            if name in self.deaf:
                break
            subject = self._do(name, subject)
        message.ack()

    def _do(self, name: str, subject: Any) -> str:
        task = subject["task_id"] if isinstance(subject, dict) else subject
        self.seen.append((name, task))
        match name:
            case "worker.compute":
                self.jobs[task] = Assignment(**subject)
                self._report(task, Step.STARTED)
                self._report(task, Step.COMPUTED)
            case "worker.contribute":
                self._contribute(self.jobs[task])
            case "worker.reveal":
                self._submit("reveal", task, {"digest": self.digest(self.jobs[task])})
            case "worker.upload":
                self.store.tasks.record_upload(
                    TaskId(task), self.key.wallet, LINK, self.digest(self.jobs[task]), None, self.clock()
                )
                self.notifier.send_advance([TaskId(task)])
            case "worker.contribute_and_finalize":
                job = self.jobs[task]
                results = to_hex(LINK.model_dump_json().encode())
                args: dict[str, object] = {
                    "digest": self.digest(job),
                    "results": results,
                    "authorization": job.authorization,
                }
                self._submit("contributeAndFinalize", task, args)
        return str(task)

    def _contribute(self, job: Assignment) -> None:
        task, digest = TaskId(job.task_id), self.digest(job)
        self._submit(
            "contribute",
            task,
            {
                "result_hash": result_hash(task, digest),
                "result_seal": result_seal(self.key.wallet, task, digest),
                "authorization": job.authorization,
            },
        )

    def _submit(self, method: str, task: str, args: Mapping[str, object]) -> None:
        self.lane.submit([Intent.new(self.settings.chain_id, self.key.wallet, method, task, args, self.clock())])
        self.lane.run()

    def _report(self, task: str, step: Step) -> None:
        wallet = self.key.wallet
        before = self.store.tasks.record_report(TaskId(task), wallet, step, self.clock(), None, None)
        if before is None:
            return
        replicate = before.replicate(wallet)
        assert replicate is not None
        if frees_slot(replicate, step, None):
            self.store.workers.pledge([(wallet, TaskId(task))])
        self.notifier.send_advance([TaskId(task)])
