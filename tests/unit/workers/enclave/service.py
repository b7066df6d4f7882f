"""The real secret service in memory, as a machine reaches it: what comes over the wire, without a wire."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import httpx
from fastapi import FastAPI

from protocol.poco.authorization import sign_authorization
from protocol.types import Wallet
from protocol.wire import Assignment, Dataset, Mode
from sms.api.application import create_app
from tests.unit.sms.world import CHECKSUM, DATASET, DEAL, POOL, TASK, WORKER, World
from tests.unit.workers.assignments import assignment
from workers.enclave.sms_api import SmsApi
from workers.task.deadline import TaskDeadline


@dataclass
class Wire:
    """Between a machine and the service. What is put into `instead` answers in its place, or breaks the line."""

    world: World
    instead: list[int | Exception] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path, **more: object) -> Wire:
        """`more`: settings of the service."""
        folder.mkdir(exist_ok=True)
        return cls(World.of(folder, **more))

    @property
    def api(self) -> SmsApi:
        """The service as WORKER uses it."""
        transport = httpx.MockTransport(self._carry)
        return SmsApi("http://sms", WORKER, allow_plaintext=True, transport=transport)

    @cached_property
    def _app(self) -> FastAPI:
        return create_app(self.world.service, self.world.rates)

    def _carry(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path.rpartition('/')[0]}")
        if self.instead:
            answer = self.instead.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return httpx.Response(answer, content=iter([b'{"data": null, "error": null}']))
        found = asyncio.run(self._served(request))
        return httpx.Response(found.status_code, headers=found.headers, content=iter([found.content]))

    async def _served(self, request: httpx.Request) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sms") as client:
            path = request.url.raw_path.decode()
            return await client.request(request.method, path, content=request.read(), headers=request.headers)

    def assignment(self, **fields: object) -> Assignment:
        """The world's task for WORKER, as its pool assigns it."""
        challenge = self.world.challenge()
        given: dict[str, object] = {
            "task_id": TASK,
            "deal_id": DEAL,
            "mode": Mode.SOLO,
            "tag": self.world.chain.executions[TASK].deal.tag,
            "wallet": WORKER.wallet,
            "dataset": Dataset(address=DATASET, url="/ipfs/Qm", checksum=CHECKSUM),
            "enclave_challenge": challenge,
            "authorization": sign_authorization(POOL, WORKER.wallet, TASK, Wallet(challenge)),
        }
        return assignment(1, **(given | fields))


@dataclass
class Hours:
    """A clock that waiting moves."""

    now: float = 0.0

    def deadline(self, until: float = 1000.0) -> TaskDeadline:
        """A task's, whose app takes 10 s."""
        return TaskDeadline(TASK, until, lambda: self.now, lambda: False, work=10.0, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
