"""Reading the PoCo hub: batched views, all of one answer taken at one block.

A read without `at` asks for the head first and pins everything to it, so that the parts of an answer never come from
two states of the chain.

Most methods return values and raise RpcUnavailable when the node cannot say them, to be called again later; RpcError
only when the contract itself refuses. What a deal consists of comes as an Answer: the ingest of deals must
distinguish one that is not there, one that no node can tell now, and one that can never be used.

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
from chain.contracts.views import Account, App, Category, Dataset, Deal, TaskPlace, Workerpool
from chain.rpc.answers import (
    Absent,
    Answer,
    Broken,
    Known,
    Reply,
    Unknown,
    decode_replies,
    decode_reply,
    parse_quantity,
    value_of,
    values,
)
from chain.rpc.client import JsonRpc, Request
from chain.rpc.response import reverted
from config.settings import Settings
from protocol.errors import RpcError, RpcUnavailable, WrongChain
from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.events import BlockRef
from protocol.poco.orders import DatasetOrder
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import BlockNumber, Contract, DealId, Hash32, NRlc, TaskId, Wallet, Wei

T = TypeVar("T")

__all__ = ["Account", "App", "Category", "Dataset", "Deal", "Hub", "TaskPlace", "Workerpool"]


class Hub:
    """The PoCo diamond at `address`."""

    def __init__(self, rpc: JsonRpc, address: Contract) -> None:
        self.rpc = rpc
        self.address = Contract(address.lower())
        self._categories: dict[int, Category] = {}

    # -- tasks and deals -----------------------------------------------------------------------------------------------

    def head(self) -> BlockNumber:
        """Number of the newest block that the node has."""
        return BlockNumber(self._ask_node("eth_blockNumber", (), parse_quantity))

    def tasks(self, task_ids: Sequence[TaskId], at: BlockNumber | None = None) -> list[ChainView]:
        """Each task with its contributions, at one block; an unknown task is UNSET."""
        block = self.head() if at is None else at
        raw = self._call_each(
            calls.VIEW_TASK, [(task_id,) for task_id in task_ids], block, read=_checker_of(TaskStatus)
        )
        pairs = [
            (task_id, worker) for task_id, fields in zip(task_ids, raw, strict=True) for worker in _voters_in(fields)
        ]
        votes = dict(zip(pairs, self.contributions(pairs, block), strict=True))
        result = []
        for task_id, fields in zip(task_ids, raw, strict=True):
            own = [votes[task_id, worker] for worker in _voters_in(fields)]
            result.append(views.chain_view(task_id, fields, tuple(vote for vote in own if vote is not None)))
        return result

    def task_place(self, task_id: TaskId) -> TaskPlace:
        """Deal and deadlines of a task; an unknown one is UNSET. The node may be behind, and know it later."""
        (fields,) = self._call_each(calls.VIEW_TASK, [(task_id,)], None, read=_checker_of(TaskStatus))
        return views.task_place(fields)

    def contributions(
        self, pairs: Sequence[tuple[TaskId, Wallet]], at: BlockNumber | None = None
    ) -> list[Contribution | None]:
        """Each worker's vote on each task, None where it has none."""
        block = self.head() if at is None else at
        raw = self._call_each(calls.VIEW_CONTRIBUTION, pairs, block, read=_checker_of(ContributionStatus))
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
        answers = self._try_each(calls.VIEW_DEAL, [(deal_id,) for deal_id in deal_ids], at)
        return [
            _judge_deal(deal_id, answer, proven=at is not None)
            for deal_id, answer in zip(deal_ids, answers, strict=True)
        ]

    def category(self, number: int, at: BlockRef | None = None) -> Answer[Category] | Broken:
        """A category, kept in memory once known, since categories never change. `at` and Broken as for `app`."""
        if number not in self._categories:
            (answer,) = self._try_each(calls.VIEW_CATEGORY, [(number,)], at)
            if not isinstance(answer, Known):
                return answer
            category = Category(number, *answer.value)
            if category.seconds > views.LONGEST:
                return Broken(f"category {number} lasts {category.seconds} s, more than {views.LONGEST}")
            self._categories[number] = category
        return Known(self._categories[number])

    def consumed(self, order_hashes: Sequence[Hash32], at: BlockRef) -> list[Answer[int] | Broken]:
        """How much of each order's volume was used or closed as of block `at`, a block that we followed."""
        return [*self._try_each(calls.VIEW_CONSUMED, [(order_hash,) for order_hash in order_hashes], at)]

    # -- who is who ----------------------------------------------------------------------------------------------------

    def app(self, address: Contract, at: BlockRef | None = None) -> Answer[App] | Broken:
        """A registered app as of block `at`; Broken where the contract refuses to show it at that very block."""
        (answer,) = self._try_each(calls.VIEW_APP, [(address,)], at)
        return Known(views.app(address, answer.value)) if isinstance(answer, Known) else answer

    def dataset(self, address: Contract, at: BlockRef | None = None) -> Answer[Dataset] | Broken:
        """A registered dataset as of block `at`; Broken where the contract refuses to show it at that very block."""
        return self.datasets([address], at)[0]

    def datasets(self, addresses: Sequence[Contract], at: BlockRef | None = None) -> list[Answer[Dataset] | Broken]:
        """Several datasets, each as by `dataset`."""
        answers = self._try_each(calls.VIEW_DATASET, [(address,) for address in addresses], at)
        return [
            Known(views.dataset(address, answer.value)) if isinstance(answer, Known) else answer
            for address, answer in zip(addresses, answers, strict=True)
        ]

    def objections(self, deal_id: DealId, orders: Sequence[DatasetOrder]) -> list[Known[str | None] | Unknown]:
        """Why the contract refuses a deal's use of each dataset, in its own words; None if the order allows it.

        Known for a deal that the node has, at one block. It does not check the order's price and volume.
        """
        tag = hex(self.head())
        # It answers nothing if all is well, as an address without a contract does: the deal, read on both sides of the
        # orders, proves that there is one.
        deal = _eth_call(self.address, calls.VIEW_DEAL, (deal_id,), tag)
        asked = [
            _eth_call(self.address, calls.CHECK_DATASET_ORDER, (order.abi_tuple(), deal_id), tag) for order in orders
        ]
        before, *answers, after = self.rpc.batch([deal, *asked, deal])
        for reply in (before, after):
            found = decode_reply(reply, _decoder_of(calls.VIEW_DEAL))
            if not isinstance(found, Known) or views.deal(deal_id, found.value) is None:
                return [Unknown("the node does not know the deal")] * len(orders)
        return [_objection(answer) for answer in answers]

    def workerpool(self, address: Contract) -> Workerpool:
        """The workerpool at `address`, as it is registered now."""
        return views.workerpool(address, self._call_each(calls.VIEW_WORKERPOOL, [(address,)], None)[0])

    def accounts(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[Account]:
        """What each wallet has in the hub, free and locked, in nRLC."""
        return [
            Account(*fields) for fields in self._call_each(calls.VIEW_ACCOUNT, [(wallet,) for wallet in wallets], at)
        ]

    def account(self, wallet: Wallet, at: BlockNumber | None = None) -> Account:
        """What one wallet has in the hub, free and locked, in nRLC."""
        return self.accounts([wallet], at)[0]

    def scores(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[int]:
        """Each worker's PoCo score (protocol.poco.weights)."""
        return self._call_each(calls.VIEW_SCORE, [(wallet,) for wallet in wallets], at)

    def token(self) -> Contract:
        """The RLC contract (zero address in native mode)."""
        return Contract(self._call_each(calls.TOKEN, [()], None)[0])

    def rlc(self, token: Contract, wallet: Wallet) -> NRlc:
        """nRLC that a wallet has outside the hub; `token`: the RLC contract."""
        return NRlc(self._call_each(calls.BALANCE_OF, [(wallet,)], None, to=token)[0])

    def registries(self) -> tuple[Contract, Contract, Contract]:
        """Addresses of the app, dataset and workerpool registries, in this order."""
        functions = (calls.APP_REGISTRY, calls.DATASET_REGISTRY, calls.WORKERPOOL_REGISTRY)
        app, dataset, workerpool = (self._call_each(function, [()], None)[0] for function in functions)
        return Contract(app), Contract(dataset), Contract(workerpool)

    def workerpools(self, owner: Wallet) -> int:
        """How many workerpools a wallet owns; each is a token of their registry."""
        registry = self._call_each(calls.WORKERPOOL_REGISTRY, [()], None)[0]
        return int(self._call_each(calls.BALANCE_OF, [(owner,)], None, to=registry)[0])

    def balances(self, wallets: Sequence[Wallet], at: BlockNumber | None = None) -> list[int]:
        """Native token that each wallet has, in wei."""
        tag = hex(self.head() if at is None else at)
        answers = self.rpc.batch([("eth_getBalance", (wallet, tag)) for wallet in wallets])
        return values(decode_replies(answers, parse_quantity), self.rpc.name)

    def gas_price(self) -> Wei:
        """What the node suggests to pay for a unit of gas, in wei."""
        return Wei(self._ask_node("eth_gasPrice", (), parse_quantity))

    # -- the right chain -----------------------------------------------------------------------------------------------

    def check_chain(self, settings: Settings) -> None:
        """Raise WrongChain unless the node is on the chain of the settings and has PoCo where they say.

        Raises RpcUnavailable while the node cannot say.
        """
        answers = self.rpc.batch([("eth_chainId", ()), ("eth_getCode", (self.address, "latest"))])
        chain_id = value_of(decode_reply(answers[0], parse_quantity), self.rpc.name)
        code = value_of(decode_reply(answers[1], to_bytes), self.rpc.name)
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
        """Raise RpcUnavailable while the node still syncs: it lacks what newer blocks hold."""
        if self._ask_node("eth_syncing", (), lambda answer: answer) is not False:
            raise RpcUnavailable(what=self.rpc.name, why="it is still reading the chain (eth_syncing)")

    def _check_workerpool(self, address: Contract) -> None:
        """Raise WrongChain unless the hub's registry knows the workerpool. Part of `check_chain`."""
        try:
            registry = self._call_each(calls.WORKERPOOL_REGISTRY, [()], None)[0]
            known = self._call_each(calls.IS_REGISTERED, [(address,)], None, to=registry)[0]
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

    def _call_each(
        self,
        function: Function,
        arguments: Sequence[tuple[object, ...]],
        at: BlockNumber | None,
        *,
        to: Contract | None = None,
        read: Callable[[Any], Any] = lambda value: value,
    ) -> list[Any]:
        """Call `function` with each tuple of arguments, in one batch; each answer's single value, through `read`.

        Raises RpcUnavailable if one of the answers cannot be read, RpcError if the contract refuses.
        """
        if not arguments:
            return []
        if at is None and len(arguments) > 1:
            at = self.head()
        tag = "latest" if at is None else hex(at)
        target = to or self.address
        answers = self.rpc.batch([_eth_call(target, function, args, tag) for args in arguments])
        for answer in answers:
            if isinstance(answer, RpcError) and reverted(answer):
                raise answer
        return values(decode_replies(answers, lambda answer: read(_decoder_of(function)(answer))), self.rpc.name)

    def _try_each(
        self, function: Function, arguments: Sequence[tuple[object, ...]], at: BlockRef | None
    ) -> list[Known[Any] | Unknown | Broken]:
        """`_call_each` at block `at`, with a verdict for each call: Broken where the contract refuses at that block."""
        if not arguments:
            return []
        tag = "latest" if at is None else hex(at.number)
        requests = [_eth_call(self.address, function, args, tag) for args in arguments]
        if at is None:
            return [*decode_replies(self.rpc.batch(requests), _decoder_of(function))]
        block: Request = ("eth_getBlockByNumber", (tag, False))
        # Asked on both sides of the calls: they were made at our block only if it stood before and afterwards.
        before, *answers, after = self.rpc.batch([block, *requests, block])
        if any(decode_reply(each, block_ref) != Known(at) for each in (before, after)):
            return [Unknown(f"the node does not have block {at.number} as we followed it")] * len(arguments)
        return [
            Broken(f"the contract refuses {function.name}: {answer.message}")
            if isinstance(answer, RpcError) and reverted(answer)
            else decode_reply(answer, _decoder_of(function))
            for answer in answers
        ]

    def _ask_node(self, method: str, params: Sequence[object], read: Callable[[Any], T]) -> T:
        """The result of one JSON-RPC request, through `read`. Raises RpcUnavailable."""
        (answer,) = self.rpc.batch([(method, params)])
        return value_of(decode_reply(answer, read), self.rpc.name)


def _judge_deal(deal_id: DealId, answer: Known[Any] | Unknown | Broken, *, proven: bool) -> Answer[Deal] | Broken:
    """The deal in viewDeal's answer; an empty record is Absent if `proven` (read at a known block), else Unknown."""
    if not isinstance(answer, Known):
        return answer
    number = views.too_big(answer.value)
    if number is not None:
        return Broken(f"one of its numbers is {number}, more than {views.MOST}")
    deal = views.deal(deal_id, answer.value)
    if deal is not None:
        return Known(deal)
    return Absent("the contract has no such deal") if proven else Unknown("the node does not know the deal")


def _objection(answer: Reply) -> Known[str | None] | Unknown:
    """Why the contract refuses a dataset's order. A revert without a reason may be of a node without the dataset."""
    if not isinstance(answer, RpcError):
        return decode_reply(answer, _require_nothing)
    data = answer.data if isinstance(answer.data, str) else ""
    for reason in calls.REASONS:
        _, found, words = data.partition("0x" + reason.selector.hex())
        if found:
            return decode_reply("0x" + words, _decoder_of(reason))
    return Unknown(f"it does not check a dataset's order: {answer.message}")


def _require_nothing(answer: str) -> None:
    """Raise ValueError unless the answer to a call is empty."""
    if answer != "0x":
        raise ValueError


def _eth_call(to: Contract, function: Function, arguments: tuple[object, ...], tag: str) -> Request:
    """The eth_call request for one contract function at block `tag`."""
    return "eth_call", ({"to": to, "data": function.encode(*arguments)}, tag)


def _decoder_of(function: Function) -> Callable[[str], Any]:
    """A reader for `decode_reply`: it decodes a function's answer to its single value."""
    return lambda answer: function.decode(answer)[0]


def _checker_of(status: type[IntEnum]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A reader that returns a record's fields, and raises ValueError if the first is not one of these statuses."""

    def read(fields: tuple[Any, ...]) -> tuple[Any, ...]:
        """The record's fields, once `status` has accepted the first of them."""
        status(fields[0])
        return fields

    return read


def _voters_in(fields: tuple[Any, ...]) -> tuple[Wallet, ...]:
    """Workers that have contributed, from the fields of viewTask's answer."""
    return views.contributors(fields)
