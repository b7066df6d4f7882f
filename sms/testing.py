"""Fakes for tests without servers: a store and files in memory, and a chain that says what a test puts there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from chain.contracts.hub import Dataset
from protocol.cid import file_cid
from protocol.enclave.secrets import SecretId
from protocol.enclave.session import SessionError
from protocol.errors import NoSession, RpcUnavailable, StorageUnavailable
from protocol.poco.orders import DatasetOrder
from protocol.types import DealId, TaskId, Wallet
from sms.chain import Execution
from sms.store.port import OpenSession, Row
from sms.vault import Sealed


class MemorySecretStore:
    """A `SecretStore` that forgets when its process ends."""

    def __init__(self) -> None:
        self.chain_id = 0
        self.rows: dict[str, Row] = {}
        self.sessions: dict[tuple[TaskId, Wallet], OpenSession] = {}

    def ready(self) -> None:
        """Nothing to do."""

    def bound_chain(self, chain_id: int) -> int:
        """See the port."""
        self.chain_id = self.chain_id or chain_id
        return self.chain_id

    def add(self, row: Row) -> bool:
        """See the port."""
        return self.rows.setdefault(row.place, row) is row

    def replace(self, place: str, sealed: Sealed, was: Sealed | None = None) -> bool:
        """See the port."""
        row = self.rows.get(place)
        if row is None or (was is not None and row.sealed != was):
            return False
        self.rows[place] = replace(row, sealed=sealed)
        return True

    def has(self, place: str) -> bool:
        """See the port."""
        return place in self.rows

    def find(self, places: Sequence[str]) -> Mapping[str, Row]:
        """See the port."""
        return {place: self.rows[place] for place in places if place in self.rows}

    def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
        """See the port."""
        return [row for row in self.rows.values() if row.sealed.key_id != key_id][:limit]

    def uses(self, key_id: str) -> bool:
        """See the port."""
        return any(row.sealed.key_id == key_id for row in self.rows.values())

    def add_session(self, session: OpenSession) -> None:
        """See the port."""
        self.sessions[session.task_id, session.wallet] = session

    def session(self, session_id: str) -> OpenSession | None:
        """See the port."""
        return next((session for session in self.sessions.values() if session.session_id == session_id), None)

    def take_session(self, session_id: str) -> bool:
        """See the port."""
        found = self.session(session_id)
        return found is not None and self.sessions.pop((found.task_id, found.wallet), None) is not None


@dataclass(slots=True)
class ScriptedChain:
    """A `ChainReader`. What is not put in, it cannot tell."""

    owners: dict[str, Wallet] = field(default_factory=dict)
    executions: dict[TaskId, Execution] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    #: What the contract has against the orders of a dataset.
    objections: dict[str, str] = field(default_factory=dict)

    def owner_of(self, secret: SecretId) -> Wallet:
        """See `ChainReader`."""
        if secret.owner not in self.owners:
            raise RpcUnavailable(what="fake://chain", why="it does not know the contract")
        return self.owners[secret.owner]

    def execution(self, task: TaskId) -> Execution:
        """See `ChainReader`."""
        if task not in self.executions:
            raise RpcUnavailable(what="fake://chain", why="it does not know the task")
        return self.executions[task]

    def allowed(self, deal: DealId, orders: Sequence[DatasetOrder]) -> tuple[Dataset, ...]:
        """See `ChainReader`."""
        del deal
        for order in orders:
            if order.dataset not in self.datasets:
                raise RpcUnavailable(what="fake://chain", why="it does not know the dataset")
            if order.dataset in self.objections:
                raise NoSession(error=SessionError.NO_DATASET_KEY, why=self.objections[order.dataset])
        return tuple(self.datasets[order.dataset] for order in orders)


@dataclass(slots=True)
class MemoryFiles:
    """An `IpfsFiles` of what is put in; nothing else is to be had."""

    files: dict[str, bytes] = field(default_factory=dict)

    def put(self, content: bytes) -> str:
        """Keep a file; returns its id."""
        cid = file_cid(content)
        self.files[cid] = content
        return cid

    def fetch(self, cid: str) -> bytes:
        """See `IpfsFiles`."""
        if cid not in self.files:
            raise StorageUnavailable(what="fake://ipfs", why="it has no such file now")
        return self.files[cid]

    def close(self) -> None:
        """Nothing is open."""
