"""PoCo's records as typed values, built from what the view functions answer. Pure: `chain.contracts.hub` reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.multiaddress import location_text
from protocol.poco.view import ChainView, Contribution, ContributionStatus, TaskStatus
from protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    BlockNumber,
    Contract,
    DealId,
    Hash32,
    NRlc,
    TaskId,
    Timestamp,
    Wallet,
)

#: Largest integer of a deal that is taken: MongoDB and SQLite hold signed integers of 8 bytes. Real ones are far below:
#: all RLC are 8.7e16 nRLC, and a trust beyond it would need more than sixty workers for one task.
MOST = 2**63 - 1
#: Longest category, seconds: PoCo's deadlines are ten times that after the deal, and must fit as well (68 years).
LONGEST = 2**31


@dataclass(frozen=True, slots=True)
class Deal:
    """A matched deal (viewDeal). Prices and stake are per task; tasks are bot_first … bot_first + bot_size - 1."""

    deal_id: DealId
    app: Contract
    app_owner: Wallet
    app_price: NRlc
    #: None for a deal without dataset.
    dataset: Contract | None
    dataset_owner: Wallet
    dataset_price: NRlc
    workerpool: Contract
    workerpool_owner: Wallet
    workerpool_price: NRlc
    trust: int
    category: int
    #: 32 bytes of requirement bits (protocol.poco.tags).
    tag: Hash32
    requester: Wallet
    beneficiary: Wallet
    #: None when no contract is to be called back.
    callback: Contract | None
    #: The requester's JSON, as written (protocol.results.params).
    params: str
    start_time: Timestamp
    bot_first: int
    bot_size: int
    #: Locked per contribution.
    worker_stake: NRlc
    #: Percent of the workerpool price that goes to the scheduler.
    scheduler_reward_ratio: int
    sponsor: Wallet


@dataclass(frozen=True, slots=True)
class Account:
    """What a wallet has in the hub: free `stake` and what tasks hold `locked`."""

    stake: NRlc
    locked: NRlc


@dataclass(frozen=True, slots=True)
class Category:
    """How long a task may compute, in `seconds`; PoCo's deadlines are multiples of it."""

    number: int
    name: str
    description: str
    seconds: int


@dataclass(frozen=True, slots=True)
class App:
    """A registered app: `kind` DOCKER, `image` its name in a registry."""

    address: Contract
    owner: Wallet
    name: str
    kind: str
    image: str
    checksum: Hash32
    enclave: bytes


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered dataset: where its file is and the file's SHA-256."""

    address: Contract
    owner: Wallet
    name: str
    location: str
    checksum: Hash32


@dataclass(frozen=True, slots=True)
class Workerpool:
    """A registered workerpool and its policy in percent."""

    address: Contract
    owner: Wallet
    description: str
    worker_stake_ratio: int
    scheduler_reward_ratio: int


def too_big(fields: object) -> int | None:
    """The first integer in these values, at any depth, above `MOST`, the largest a store holds; None if none is."""
    if isinstance(fields, tuple):
        return next((found for part in fields if (found := too_big(part)) is not None), None)
    return fields if isinstance(fields, int) and fields > MOST else None


def deal(deal_id: DealId, fields: tuple[Any, ...]) -> Deal | None:
    """The deal in viewDeal's answer; None if the contract has no deal of that id."""
    app, dataset, workerpool, trust, category, tag, requester, beneficiary, callback, params, *rest = fields
    start_time, bot_first, bot_size, worker_stake, scheduler_reward_ratio, sponsor = rest
    if bot_size == 0:
        return None
    return Deal(
        deal_id=deal_id,
        app=Contract(app[0]),
        app_owner=Wallet(app[1]),
        app_price=NRlc(app[2]),
        dataset=_contract_or_none(dataset[0]),
        dataset_owner=Wallet(dataset[1]),
        dataset_price=NRlc(dataset[2]),
        workerpool=Contract(workerpool[0]),
        workerpool_owner=Wallet(workerpool[1]),
        workerpool_price=NRlc(workerpool[2]),
        trust=trust,
        category=category,
        tag=Hash32(to_hex(tag)),
        requester=Wallet(requester),
        beneficiary=Wallet(beneficiary),
        callback=_contract_or_none(callback),
        params=params,
        start_time=Timestamp(start_time),
        bot_first=bot_first,
        bot_size=bot_size,
        worker_stake=NRlc(worker_stake),
        scheduler_reward_ratio=scheduler_reward_ratio,
        sponsor=Wallet(sponsor),
    )


def contributors(fields: tuple[Any, ...]) -> tuple[Wallet, ...]:
    """Workers that have contributed, from the fields of viewTask's answer, in the order of their votes."""
    return tuple(Wallet(address) for address in fields[10])


def chain_view(task_id: TaskId, fields: tuple[Any, ...], votes: tuple[Contribution, ...]) -> ChainView:
    """The task in viewTask's answer, with these votes. The contract keeps no block numbers, so those stay None."""
    status, consensus, reveal_deadline, results = TaskStatus(fields[0]), to_hex(fields[7]), fields[5], fields[12]
    return ChainView(
        task_id=task_id,
        status=status,
        contributions=votes,
        consensus=None if consensus == ZERO_HASH else Hash32(consensus),
        reveal_deadline=None if consensus == ZERO_HASH else Timestamp(reveal_deadline),
        results=to_hex(results),
    )


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Which task of which deal an id stands for, and until when. Deadlines in Unix seconds."""

    deal_id: DealId
    index: int
    status: TaskStatus
    contribution_deadline: Timestamp
    final_deadline: Timestamp


def task_place(fields: tuple[Any, ...]) -> TaskPlace:
    """Deal, index and deadlines in viewTask's answer; of an unknown task all are zero."""
    return TaskPlace(
        DealId(to_hex(fields[1])), fields[2], TaskStatus(fields[0]), Timestamp(fields[4]), Timestamp(fields[6])
    )


def contribution(worker: Wallet, fields: tuple[Any, ...], at: BlockNumber) -> Contribution:
    """The vote in viewContribution's answer.

    The contract does not say when it was cast: `at` is the block it was read at.
    """
    return Contribution(worker, Hash32(to_hex(fields[1])), ContributionStatus(fields[0]), at)


def app(address: Contract, fields: tuple[Any, ...]) -> App:
    """The app in viewApp's answer."""
    owner, name, kind, location, checksum, enclave = fields
    return App(address, Wallet(owner), name, kind, location_text(location), _hex_hash(checksum), enclave)


def dataset(address: Contract, fields: tuple[Any, ...]) -> Dataset:
    """The dataset in viewDataset's answer."""
    owner, name, location, checksum = fields
    return Dataset(address, Wallet(owner), name, location_text(location), _hex_hash(checksum))


def workerpool(address: Contract, fields: tuple[Any, ...]) -> Workerpool:
    """The workerpool in viewWorkerpool's answer."""
    owner, description, worker_stake_ratio, scheduler_reward_ratio = fields
    return Workerpool(address, Wallet(owner), description, worker_stake_ratio, scheduler_reward_ratio)


def _hex_hash(word: bytes) -> Hash32:
    """A bytes32 of an answer as `0x` hex."""
    return Hash32(to_hex(word))


def _contract_or_none(address: str) -> Contract | None:
    """The address of a contract; None for the zero address, which PoCo writes for "none"."""
    return None if address == ZERO_ADDRESS else Contract(address)
