"""What the secret service reads from the chain: who owns a contract and so its secret, and a task with its deal.

What a node cannot say raises RpcUnavailable: the request is answered with 503 and may be repeated. An owner, or a task
that is over, is never guessed from silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from chain.contracts.hub import App, Dataset, Deal, Hub, TaskPlace
from chain.rpc.answers import Answer, Broken, Known
from protocol.enclave.secrets import Kind, SecretId
from protocol.enclave.session import SessionError
from protocol.errors import NoSession, RpcUnavailable
from protocol.poco.orders import DatasetOrder
from protocol.poco.view import TaskStatus
from protocol.types import Contract, DealId, TaskId, Wallet

T = TypeVar("T")

#: Characters of a reason that holds words of others.
WHY_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Execution:
    """A task as the chain has it, with its deal, app and dataset."""

    task_id: TaskId
    place: TaskPlace
    deal: Deal
    app: App
    #: None for a deal without one.
    dataset: Dataset | None


class ChainReader(Protocol):
    """All raise RpcUnavailable for what the node cannot say now."""

    def owner_of(self, secret: SecretId) -> Wallet:
        """The owner of the dataset or app that a secret belongs to."""

    def execution(self, task: TaskId) -> Execution:
        """A task that was initialized."""

    def allowed(self, deal: DealId, orders: Sequence[DatasetOrder]) -> tuple[Dataset, ...]:
        """The datasets of these orders, each of which allows the deal to use it. Raises NoSession if one does not."""


class PocoReader:
    """The PoCo hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def owner_of(self, secret: SecretId) -> Wallet:
        """The owner of the dataset or app that a secret belongs to."""
        address, what = Contract(secret.owner), f"contract {secret.owner}"
        if secret.kind is Kind.DATASET:
            return self._known(self._hub.dataset(address), what).owner
        return self._known(self._hub.app(address), what).owner

    def execution(self, task: TaskId) -> Execution:
        """A task that was initialized."""
        place = self._hub.task_place(task)
        if place.status is TaskStatus.UNSET:
            raise RpcUnavailable(what=self._hub.rpc.name, why=f"it does not know the task {task}")
        deal = self._known(self._hub.deals([place.deal_id])[0], "the deal")
        dataset = None if deal.dataset is None else self._known(self._hub.dataset(deal.dataset), "the dataset")
        return Execution(task, place, deal, self._known(self._hub.app(deal.app), "the app"), dataset)

    def allowed(self, deal: DealId, orders: Sequence[DatasetOrder]) -> tuple[Dataset, ...]:
        """The datasets of these orders, each of which allows the deal to use it. Raises NoSession if one does not."""
        for order, answer in zip(orders, self._hub.objections(deal, orders), strict=True):
            objection = self._known(answer, f"whether dataset {order.dataset} may be used")
            if objection is not None:
                why = f"the contract says of the order of dataset {order.dataset}: {objection}"
                raise NoSession(error=SessionError.NO_DATASET_KEY, why=why[:WHY_CHARACTERS])
        found = self._hub.datasets([order.dataset for order in orders])
        return tuple(self._known(answer, "a dataset") for answer in found)

    def _known(self, answer: Answer[T] | Broken, what: str) -> T:
        """What the hub answered. Raises RpcUnavailable if it is not known."""
        if isinstance(answer, Known):
            return answer.value
        raise RpcUnavailable(what=self._hub.rpc.name, why=f"it does not tell {what}: {answer.why}")
