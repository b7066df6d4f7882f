"""Reading the PoCo hub: batched views, all of one answer taken at one block.

A read without `at` asks for the head first and pins everything to it, so that the parts of an answer never come from
two states of the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chain import calls, views
from chain.abi import Function
from chain.rpc import JsonRpc
from chain.views import Account, App, Category, Dataset, Deal, Workerpool
from config.settings import Settings
from protocol.errors import RpcError, WrongChain
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, DealId, TaskId, Wallet
from protocol.view import ChainView, Contribution, ContributionStatus

__all__ = ["Account", "App", "Category", "Dataset", "Deal", "Hub", "Workerpool"]


class Hub:
    """The PoCo diamond at `address`. Every method raises RpcError or RpcUnavailable when the node fails it."""

    def __init__(self, rpc: JsonRpc, address: Contract) -> None:
        self.rpc = rpc
        self.address = Contract(address.lower())
        self._categories: dict[int, Category] = {}

    # -- tasks and deals -----------------------------------------------------------------------------------------------

    def head(self) -> BlockNumber:
        """The newest block the node has."""
        return BlockNumber(int(self.rpc.call("eth_blockNumber"), 16))

    def tasks(self, task_ids: Sequence[TaskId], at: BlockNumber | None = None) -> list[ChainView]:
        """Each task with its contributions, at one block; an unknown task is UNSET."""
        block = self.head() if at is None else at
        raw = self._views(calls.VIEW_TASK, [(task_id,) for task_id in task_ids], block)
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
        raw = self._views(calls.VIEW_CONTRIBUTION, pairs, block)
        votes = [views.contribution(worker, fields, block) for (_, worker), fields in zip(pairs, raw, strict=True)]
        return [None if vote.status is ContributionStatus.UNSET else vote for vote in votes]

    def contribution(self, task_id: TaskId, worker: Wallet, at: BlockNumber | None = None) -> Contribution | None:
        """One worker's vote on one task."""
        return self.contributions([(task_id, worker)], at)[0]

    def deals(self, deal_ids: Sequence[DealId], at: BlockNumber | None = None) -> list[Deal | None]:
        """Each deal, None where the contract knows none (its block was taken back)."""
        raw = self._views(calls.VIEW_DEAL, [(deal_id,) for deal_id in deal_ids], at)
        return [views.deal(deal_id, fields) for deal_id, fields in zip(deal_ids, raw, strict=True)]

    def category(self, number: int) -> Category:
        """A category; remembered, since categories never change."""
        if number not in self._categories:
            (fields,) = self._views(calls.VIEW_CATEGORY, [(number,)], None)
            self._categories[number] = Category(number, *fields)
        return self._categories[number]

    # -- who is who ----------------------------------------------------------------------------------------------------

    def app(self, address: Contract) -> App:
        """A registered app."""
        return views.app(address, self._views(calls.VIEW_APP, [(address,)], None)[0])

    def dataset(self, address: Contract) -> Dataset:
        """A registered dataset."""
        return views.dataset(address, self._views(calls.VIEW_DATASET, [(address,)], None)[0])

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
        """Each worker's PoCo score (protocol.weights)."""
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
        return [int(answer, 16) for answer in _all(answers)]

    # -- the right chain -----------------------------------------------------------------------------------------------

    def check_chain(self, settings: Settings) -> None:
        """Raise WrongChain unless the node is on the chain of the settings and has PoCo where they say."""
        answers = self.rpc.batch([("eth_chainId", ()), ("eth_getCode", (self.address, "latest"))])
        chain_id, code = _all(answers)
        if int(chain_id, 16) != settings.chain_id:
            raise WrongChain(
                why=f"{self.rpc.name} is on chain {int(chain_id, 16)}, SLUICE_CHAIN_ID is {settings.chain_id}",
                fix="Set SLUICE_RPC_URL to a node of that chain, or SLUICE_CHAIN_ID to this one.",
            )
        if code in ("0x", ""):
            raise WrongChain(
                why=f"there is no contract at the hub address {self.address} on chain {settings.chain_id}",
                fix="Set SLUICE_HUB to the PoCo hub of this chain.",
            )
        if settings.workerpool is not None:
            self._check_workerpool(Contract(settings.workerpool.lower()))

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
    ) -> list[Any]:
        """The single value that `function` answers for each tuple of arguments."""
        if not arguments:
            return []
        if at is None and len(arguments) > 1:
            at = self.head()
        tag = "latest" if at is None else hex(at)
        target = to or self.address
        requests = [("eth_call", ({"to": target, "data": function.encode(*args)}, tag)) for args in arguments]
        return [function.decode(answer)[0] for answer in _all(self.rpc.batch(requests))]


def _voters(fields: tuple[Any, ...]) -> tuple[Wallet, ...]:
    return views.contributors(fields)


def _all(answers: Sequence[Any]) -> list[Any]:
    """The answers, or the first error among them raised."""
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
    return list(answers)
