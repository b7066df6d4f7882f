"""Reading the PoCo hub: batched views, all of one answer taken at one block.

A read without `at` asks for the head first and pins everything to it, so that the parts of an answer never come from
two states of the chain.

Most methods return values and raise RpcUnavailable when the node cannot say them, to be called again later; RpcError
only when the contract itself refuses. What a deal consists of comes as an Answer: whoever ingests deals must tell one
that is not there, one that nobody can say now, and one that can never be used.

These reads do not go through web3.py's contract objects (`chain.contracts.contract`), which serve all else. Those ask
one call at a time and raise for a whole answer; here hundreds of views share a batch, each with its own verdict, and
strings are read as Java reads them. Measured for `viewTask` with five voters, without the network: 0.11 ms to encode
and decode here, 2.8 ms for `contract.functions.viewTask(…).call()` of web3.py 8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar

from chain.contracts import calls, views
from chain.contracts.abi import Function
from chain.contracts.decode import block_ref
from chain.contracts.views import Account, App, Category, Dataset, Deal, Workerpool
from chain.rpc.answers import Absent, Answer, Broken, Known, Unknown, heard, heard_each, value_of, values
from chain.rpc.client import JsonRpc, Request
from chain.rpc.response import reverted
from config.settings import Settings
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.events import BlockRef
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, DealId, TaskId, Wallet, Wei

T = TypeVar("T")

__all__ = ["Account", "App", "Category", "Dataset", "Deal", "Hub", "Workerpool"]


class Hub:
    """The PoCo diamond at `address`."""

    def __init__(self, rpc: JsonRpc, address: Contract) -> None:
        self.rpc = rpc
        self.address = Contract(address.lower())
        self._categories: dict[int, Category] = {}

    # -- tasks and deals -----------------------------------------------------------------------------------------------

    def head(self) -> BlockNumber:
        """The newest block the node has."""
        return BlockNumber(self._one("eth_blockNumber", (), _quantity))

    def tasks(self, task_ids: Sequence[TaskId], at: BlockNumber | None = None) -> list[ChainView]:
        """Each task with its contributions, at one block; an unknown task is UNSET."""
        block = self.head() if at is None else at
        raw = self._views(calls.VIEW_TASK, [(task_id,) for task_id in task_ids], block, read=_with(TaskStatus))
        pairs = [(task_id, worker) for task_id, fields in zip(task_ids, raw, strict=True) for worker in _voters(fields)]
        votes = dict(zip(pairs, self.contributions(pairs, block), strict=True))
        result = []
        for task_id, fields in zip(task_ids, raw, strict=True):
            own = [votes[task_id, worker] for worker in _voters(fields)]
            result.append(views.chain_view(task_id, fields, tuple(vote for vote in own if vote is not None)))
        return result

    def contributions(
        self, pairs: Sequence[tuple[TaskId, Wallet]], at: BlockNumber | None = None
    ) -> list[Contribution | None]:
        """Each worker's vote on each task, None where it has none."""
        block = self.head() if at is None else at
        raw = self._views(calls.VIEW_CONTRIBUTION, pairs, block, read=_with(ContributionStatus))
        votes = [views.contribution(worker, fields, block) for (_, worker), fields in zip(pairs, raw, strict=True)]
        return [None if vote.status is ContributionStatus.UNSET else vote for vote in votes]

    def contribution(self, task_id: TaskId, worker: Wallet, at: BlockNumber | None = None) -> Contribution | None:
        """One worker's vote on one task."""
        return self.contributions([(task_id, worker)], at)[0]

    def deals(self, deal_ids: Sequence[DealId], at: BlockRef | None = None) -> list[Answer[Deal] | Broken]:
        """Each deal as of block `at`, a block that we followed at or after the one where the deal was matched.

        Absent where the contract has none although the node has that very block; without `at` that is Unknown, since
        the node may be behind. Broken for a deal with a number that nothing can store.
        """
        answers = self._asked(calls.VIEW_DEAL, [(deal_id,) for deal_id in deal_ids], at)
        return [
            _deal(deal_id, answer, proven=at is not None) for deal_id, answer in zip(deal_ids, answers, strict=True)
        ]

    def category(self, number: int, at: BlockRef | None = None) -> Answer[Category] | Broken:
        """A category; remembered once known, since categories never change. `at` as for `app`."""
        if number not in self._categories:
            (answer,) = self._asked(calls.VIEW_CATEGORY, [(number,)], at)
            if not isinstance(answer, Known):
                return answer
            category = Category(number, *answer.value)
            if category.seconds > views.LONGEST:
                return Broken(f"category {number} lasts {category.seconds} s, more than {views.LONGEST}")
            self._categories[number] = category
        return Known(self._categories[number])

    # -- who is who ----------------------------------------------------------------------------------------------------

    def app(self, address: Contract, at: BlockRef | None = None) -> Answer[App] | Broken:
        """A registered app as of block `at`; Broken where the contract refuses to show it at that very block."""
        (answer,) = self._asked(calls.VIEW_APP, [(address,)], at)
        return Known(views.app(address, answer.value)) if isinstance(answer, Known) else answer

    def dataset(self, address: Contract, at: BlockRef | None = None) -> Answer[Dataset] | Broken:
        """A registered dataset; as `app`."""
        (answer,) = self._asked(calls.VIEW_DATASET, [(address,)], at)
        return Known(views.dataset(address, answer.value)) if isinstance(answer, Known) else answer

    def workerpool(self, address: Contract) -> Workerpool:
        """A registered workerpool."""
        return views.workerpool(address, self._views(calls.VIEW_WORKERPOOL, [(address,)], None)[0])

    def accounts(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[Account]:
        """What each wallet has free and locked."""
        return [Account(*fields) for fields in self._views(calls.VIEW_ACCOUNT, [(wallet,) for wallet in wallets], at)]

    def account(self, wallet: Wallet, at: BlockNumber | None = None) -> Account:
        """What one wallet has free and locked."""
        return self.accounts([wallet], at)[0]

    def scores(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[int]:
        """Each worker's PoCo score (protocol.poco.weights)."""
        return self._views(calls.VIEW_SCORE, [(wallet,) for wallet in wallets], at)

    def tee_broker(self) -> Wallet | None:
        """Who signs authorizations of TEE tasks in the workerpool owner's place, if anybody."""
        (broker,) = self._views(calls.TEE_BROKER, [()], None)
        return None if broker == ZERO_ADDRESS else Wallet(broker)

    def token(self) -> Contract:
        """The RLC contract (zero address in native mode)."""
        return Contract(self._views(calls.TOKEN, [()], None)[0])

    def registries(self) -> tuple[Contract, Contract, Contract]:
        """App, dataset and workerpool registry."""
        functions = (calls.APP_REGISTRY, calls.DATASET_REGISTRY, calls.WORKERPOOL_REGISTRY)
        app, dataset, workerpool = (self._views(function, [()], None)[0] for function in functions)
        return Contract(app), Contract(dataset), Contract(workerpool)

    def balances(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[int]:
        """Each wallet's wei."""
        tag = hex(self.head() if at is None else at)
        answers = self.rpc.batch([("eth_getBalance", (wallet, tag)) for wallet in wallets])
        return values(heard_each(answers, _quantity), self.rpc.name)

    def gas_price(self) -> Wei:
        """What the node suggests to pay for a unit of gas."""
        return Wei(self._one("eth_gasPrice", (), _quantity))

    # -- the right chain -----------------------------------------------------------------------------------------------

    def check_chain(self, settings: Settings) -> None:
        """Raise WrongChain unless the node is on the chain of the settings and has PoCo where they say.

        Raises RpcUnavailable while the node cannot say.
        """
        answers = self.rpc.batch([("eth_chainId", ()), ("eth_getCode", (self.address, "latest"))])
        chain_id = value_of(heard(answers[0], _quantity), self.rpc.name)
        code = value_of(heard(answers[1], to_bytes), self.rpc.name)
        if chain_id != settings.chain_id:
            raise WrongChain(
                why=f"{self.rpc.name} is on chain {chain_id}, SLUICE_CHAIN_ID is {settings.chain_id}",
                fix="Set SLUICE_RPC_URL to a node of that chain, or SLUICE_CHAIN_ID to this one.",
            )
        if not code:
            self._check_synced()
            raise WrongChain(
                why=f"there is no contract at the hub address {self.address} on chain {settings.chain_id}",
                fix="Set SLUICE_HUB to the PoCo hub of this chain.",
            )
        if settings.workerpool is not None:
            self._check_workerpool(Contract(settings.workerpool.lower()))

    def _check_synced(self) -> None:
        """Raise RpcUnavailable while the node still reads blocks: it lacks what newer blocks hold."""
        if self._one("eth_syncing", (), lambda answer: answer) is not False:
            raise RpcUnavailable(what=self.rpc.name, why="it is still reading the chain (eth_syncing)")

    def _check_workerpool(self, address: Contract) -> None:
        try:
            registry = self._views(calls.WORKERPOOL_REGISTRY, [()], None)[0]
            known = self._views(calls.IS_REGISTERED, [(address,)], None, to=registry)[0]
        except RpcError as error:
            raise WrongChain(
                why=f"the contract at {self.address} is not a PoCo hub",
                fix="Set SLUICE_HUB to the PoCo hub of this chain.",
            ) from error
        if not known:
            self._check_synced()
            raise WrongChain(
                why=f"{address} is not a workerpool registered with the hub {self.address}",
                fix="Set SLUICE_WORKERPOOL to the address of a workerpool of this hub.",
            )

    # -- batched eth_call ----------------------------------------------------------------------------------------------

    def _views(
        self,
        function: Function,
        arguments: Sequence[tuple[object, ...]],
        at: BlockNumber | None,
        *,
        to: Contract | None = None,
        read: Callable[[Any], Any] = lambda value: value,
    ) -> list[Any]:
        """The single value that `function` answers for each tuple of arguments, through `read`.

        Raises RpcUnavailable if one of the answers cannot be read, RpcError if the contract refuses.
        """
        if not arguments:
            return []
        if at is None and len(arguments) > 1:
            at = self.head()
        tag = "latest" if at is None else hex(at)
        target = to or self.address
        answers = self.rpc.batch([_call(target, function, args, tag) for args in arguments])
        for answer in answers:
            if isinstance(answer, RpcError) and reverted(answer):
                raise answer
        return values(heard_each(answers, lambda answer: read(_decoded(function)(answer))), self.rpc.name)

    def _asked(
        self, function: Function, arguments: Sequence[tuple[object, ...]], at: BlockRef | None
    ) -> list[Known[Any] | Unknown | Broken]:
        """As `_views` at block `at`, one answer each; Broken where the contract refuses at a block that is `at`."""
        if not arguments:
            return []
        tag = "latest" if at is None else hex(at.number)
        requests = [_call(self.address, function, args, tag) for args in arguments]
        if at is None:
            return [*heard_each(self.rpc.batch(requests), _decoded(function))]
        block: Request = ("eth_getBlockByNumber", (tag, False))
        # Asked on both sides of the calls: they were made at our block only if it stood before and afterwards.
        before, *answers, after = self.rpc.batch([block, *requests, block])
        if any(heard(each, block_ref) != Known(at) for each in (before, after)):
            return [Unknown(f"the node does not have block {at.number} as we followed it")] * len(arguments)
        return [
            Broken(f"the contract refuses {function.name}: {answer.message}")
            if isinstance(answer, RpcError) and reverted(answer)
            else heard(answer, _decoded(function))
            for answer in answers
        ]

    def _one(self, method: str, params: Sequence[object], read: Callable[[Any], T]) -> T:
        """What one call says. Raises RpcUnavailable."""
        (answer,) = self.rpc.batch([(method, params)])
        return value_of(heard(answer, read), self.rpc.name)


def _deal(deal_id: DealId, answer: Known[Any] | Unknown | Broken, *, proven: bool) -> Answer[Deal] | Broken:
    if not isinstance(answer, Known):
        return answer
    number = views.too_big(answer.value)
    if number is not None:
        return Broken(f"one of its numbers is {number}, more than {views.MOST}")
    deal = views.deal(deal_id, answer.value)
    if deal is not None:
        return Known(deal)
    return Absent("the contract has no such deal") if proven else Unknown("the node does not know the deal")


def _call(to: Contract, function: Function, arguments: tuple[object, ...], tag: str) -> Request:
    return "eth_call", ({"to": to, "data": function.encode(*arguments)}, tag)


def _decoded(function: Function) -> Callable[[str], Any]:
    return lambda answer: function.decode(answer)[0]


def _with(status: type[IntEnum]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Fields of a record as they are, for a record that begins with one of these statuses; ValueError otherwise."""

    def read(fields: tuple[Any, ...]) -> tuple[Any, ...]:
        status(fields[0])
        return fields

    return read


def _quantity(answer: str) -> int:
    return int(answer, 16)


def _voters(fields: tuple[Any, ...]) -> tuple[Wallet, ...]:
    return views.contributors(fields)
