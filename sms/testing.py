"""Fakes for tests without servers: a store and files in memory, and a chain with the answers that a test sets."""

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
        """Do nothing: memory needs no preparation."""

    def bound_chain(self, chain_id: int) -> int:
        """The chain that the secrets are of: `chain_id` from the first call on, of whatever process."""
        self.chain_id = self.chain_id or chain_id
        return self.chain_id

    def add(self, row: Row) -> bool:
        """Store a row; False, and nothing is changed, if its place is taken."""
        return self.rows.setdefault(row.place, row) is row

    def replace(self, place: str, sealed: Sealed, was: Sealed | None = None) -> bool:
        """Put another value in the place; False if it is empty, or holds another than `was`, if that is given."""
        row = self.rows.get(place)
        if row is None or (was is not None and row.sealed != was):
            return False
        self.rows[place] = replace(row, sealed=sealed)
        return True

    def has(self, place: str) -> bool:
        """Whether something is stored there."""
        return place in self.rows

    def find(self, places: Sequence[str]) -> Mapping[str, Row]:
        """What is stored at these places."""
        return {place: self.rows[place] for place in places if place in self.rows}

    def sealed_otherwise(self, key_id: str, limit: int) -> list[Row]:
        """Some of the rows that are encrypted with another key than this one."""
        return [row for row in self.rows.values() if row.sealed.key_id != key_id][:limit]

    def uses(self, key_id: str) -> bool:
        """Whether a row is encrypted with this key."""
        return any(row.sealed.key_id == key_id for row in self.rows.values())

    def add_session(self, session: OpenSession) -> None:
        """Store a session, in place of what the worker had for the task before."""
        self.sessions[session.task_id, session.wallet] = session

    def session(self, session_id: str) -> OpenSession | None:
        """A session; None if it was taken, replaced, or never there."""
        return next((session for session in self.sessions.values() if session.session_id == session_id), None)

    def take_session(self, session_id: str) -> bool:
        """Remove a session; False if it is not there: of several that take it at once, one does."""
        found = self.session(session_id)
        return found is not None and self.sessions.pop((found.task_id, found.wallet), None) is not None


@dataclass(slots=True)
class ScriptedChain:
    """A `ChainReader` with set answers; it raises RpcUnavailable for anything else."""

    owners: dict[str, Wallet] = field(default_factory=dict)
    executions: dict[TaskId, Execution] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    #: Why the contract refuses the orders of a dataset.
    objections: dict[str, str] = field(default_factory=dict)

    def owner_of(self, secret: SecretId) -> Wallet:
        """The owner of the dataset or app that a secret belongs to."""
        if secret.owner not in self.owners:
            raise RpcUnavailable(what="fake://chain", why="it does not know the contract")
        return self.owners[secret.owner]

    def execution(self, task: TaskId) -> Execution:
        """A task that was initialized."""
        if task not in self.executions:
            raise RpcUnavailable(what="fake://chain", why="it does not know the task")
        return self.executions[task]

    def allowed(self, deal: DealId, orders: Sequence[DatasetOrder]) -> tuple[Dataset, ...]:
        """The datasets of these orders, each of which allows the deal to use it. Raises NoSession if one does not."""
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
        """The content of a file, by its CIDv0. Raises StorageUnavailable for what cannot be had now."""
        if cid not in self.files:
            raise StorageUnavailable(what="fake://ipfs", why="it has no such file now")
        return self.files[cid]

    def close(self) -> None:
        """Do nothing: no connection is open."""
