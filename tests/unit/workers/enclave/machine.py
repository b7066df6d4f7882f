"""A machine with simulated enclaves, without an engine: its app is a function, the secret service is in memory."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from config.settings import read_settings
from protocol.assignment import sign_assignment
from protocol.enclave.cipher import encrypted
from protocol.enclave.secrets import app_secret, dataset_key, requester_secret
from protocol.types import ZERO_ADDRESS, Contract, Hash32
from protocol.wire import Assignment, Dataset, Report
from tests.unit.sms.world import (
    APP,
    DATASET,
    OWNER,
    POOL,
    REQUESTER,
    TASK,
    TDX_TAG,
    WORKER,
    execution,
    with_deal,
)
from tests.unit.workers.assignments import CHAIN_ID, WORKERPOOL
from tests.unit.workers.enclave import programs
from tests.unit.workers.enclave.service import Wire
from workers.data.layout import Layout
from workers.data.outputs import ResultLimits
from workers.enclave import launcher
from workers.enclave.simulated import Simulated
from workers.sandbox.engine.container_state import ContainerExit, ContainerState
from workers.sandbox.profile import sandbox_of
from workers.sandbox.spec import ContainerSpec, EngineResources, Limits
from workers.task.compute import compute
from workers.task.journal import Journal
from workers.task.replicate import Replicate

ROWS, KEY = b"rows that nobody but the enclave may read\n" * 1000, bytes(range(32))
SEALED = b"".join(encrypted([ROWS], KEY, b"\x01" * 16))
CHECKSUM = Hash32("0x" + hashlib.sha256(SEALED).hexdigest())
DEVELOPERS, REQUESTERS = "the-developers-secret-value", "the-requesters-secret-value"
ANSWER = b"the answer"
ANSWER_SHA256 = hashlib.sha256(ANSWER).digest()
ENDED = ContainerState("container", "exited", False, False, 0, False, datetime.now(UTC), datetime.now(UTC))


def handed_to(spec: ContainerSpec) -> dict[str, str]:
    """The variables that a container gets past the engine, which has none."""
    assert spec.environment == {}
    assert spec.handed is not None
    return dict(spec.handed.variables)


@cache
def beneficiary() -> RSAPrivateKey:
    return generate_private_key(65537, 2048)


class Bench:
    """A machine with simulated enclaves, and what becomes of a replicate on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, tag: Hash32 = TDX_TAG, **sms: object) -> None:
        """`tag`: of the deal; `sms`: settings of the secret service."""
        self.tag = tag
        self.wire, self.sent, self.environments = Wire.of(folder / "sms", **sms), list[Report](), list[dict[str, str]]()
        self.served, self.opened = {"/ipfs/Qm": SEALED}, {DATASET: ROWS}
        #: What the app says of its result.
        self.computed = '{"deterministic-output-path": "/iexec_out/answer.txt"}'
        #: Of the deal: the contract that gets its results.
        self.callback: Contract | None = None
        self.end, self.resumed = ContainerExit(0, False, False), list[bool]()
        #: Containers that were removed, by name or id.
        self.removed = list[str]()
        #: What the engine says of the container of an earlier attempt.
        self.container = ENDED
        self.layout = Layout(folder / "worker")
        self.layout.make()
        self.journal = Journal(self.layout.journal)
        framework = Simulated(self.wire.api)
        self.machine = SimpleNamespace(
            wallet=WORKER.wallet,
            pool=SimpleNamespace(scheduler=POOL.wallet, chain_id=CHAIN_ID, workerpool=WORKERPOOL),
            downloads=SimpleNamespace(max_bytes=2**30, pool_max_bytes=2**30),
            images=None,
            settings=SimpleNamespace(worker_name="test", scratch_bytes=1),
            limits=Limits(2**30, 10**9),
            memory_per_slot=2**30,
            keeps_memory_promise=True,
            result_limits=ResultLimits(2**20),
            sandbox=sandbox_of(read_settings()),
            framework=framework,
            tag=framework.tag,
            gpus=(),
            engine_resources=EngineResources(cpus=2, memory_bytes=2**33),
        )
        self.context: Any = SimpleNamespace(
            layout=self.layout,
            journal=self.journal,
            now=time.time,
            machine=self.machine,
            ledger=SimpleNamespace(why_not=lambda _: None),
            engine=SimpleNamespace(
                data_folder=None,
                info=dict,
                remove=self.removed.append,
                state=lambda _: self.container,
                printed=lambda _: (b"printed", b""),
                signalled=lambda _, untold: untold,
                inspect=lambda _: {},
            ),
            reports=SimpleNamespace(send=lambda _, report: self.sent.append(report), later=lambda act: act()),
        )
        monkeypatch.setattr("workers.data.inputs.download", self._download)
        monkeypatch.setattr("workers.sandbox.run_app.run_app", self._run)
        monkeypatch.setattr("workers.enclave.surrounding._run", programs.run)
        monkeypatch.setattr(launcher, "provide", lambda *_: "/launcher")
        world = self.wire.world
        world.keep(OWNER, dataset_key(DATASET), base64.b64encode(KEY))
        world.keep(OWNER, app_secret(APP), DEVELOPERS.encode())
        world.keep(REQUESTER, requester_secret(REQUESTER.wallet, "mine"), REQUESTERS.encode())
        self.deal()

    def deal(self, **params: object) -> None:
        """What the deal asks for besides a requester's secret."""
        wanted = {"iexec_secrets": {"1": "mine"}, **params}
        found = with_deal(execution(**wanted), tag=self.tag, callback=self.callback)
        dataset = found.dataset and replace(found.dataset, checksum=CHECKSUM)
        self.wire.world.chain.executions[TASK] = replace(found, dataset=dataset)

    def assignment(self, **fields: object) -> Assignment:
        deal = self.wire.world.chain.executions[TASK].deal
        dataset = Dataset(address=DATASET, url="/ipfs/Qm", checksum=CHECKSUM) if deal.dataset else None
        given = {"params": deal.params, "dataset": dataset, "callback": deal.callback or ZERO_ADDRESS}
        made = self.wire.assignment(**(given | fields))
        return sign_assignment(POOL, made, CHAIN_ID, WORKERPOOL)

    def replicate(self, **fields: object) -> Replicate:
        compute(self.context, self.assignment(**fields))
        found = self.journal.find(TASK)
        assert found is not None
        return found

    def _download(self, url: str, target: Path, *_: object) -> str:
        target.write_bytes(self.served[url])
        return "0x" + hashlib.sha256(self.served[url]).hexdigest()

    def _run(self, app: Any, *, resumed: bool) -> ContainerExit:
        self.resumed.append(resumed)
        self.environments.append(handed_to(app.spec) if app.spec.handed else app.spec.environment)
        assert DEVELOPERS not in repr(app.spec)
        app.created("container")
        folders = self.layout.task(TASK)
        assert {path.name: path.read_bytes() for path in folders.inputs.iterdir()} == self.opened
        (folders.outputs / "answer.txt").write_bytes(ANSWER)
        (folders.outputs / "computed.json").write_text(self.computed)
        return self.end

    def left(self) -> bytes:
        """All that is on the machine's disk."""
        return b"".join(path.read_bytes() for path in self.layout.root.rglob("*") if path.is_file())
