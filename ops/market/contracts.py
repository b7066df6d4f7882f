"""Apps, datasets and workerpools, and stakes for whoever works with them: everything a market needs, in one block.

The address of a registry entry follows from its content and owner (CREATE2), so it is known before the entry exists:
creations, the pool's policy and all deposits go out together instead of one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chain import calls
from chain.abi import Function
from ops.poco.actor import PATIENCE, Actor, Call
from ops.poco.deploy import PocoAddresses
from ops.poco.receipts import await_mined
from protocol.errors import RpcError
from protocol.types import Contract, Hash32, NRlc, TxHash, Wallet

#: The only kind of app there is (iexec-worker 9.2).
DOCKER = "DOCKER"
#: Policy of a new workerpool in percent of a task's price (Workerpool.sol): worker's stake, scheduler's share.
DEFAULT_POLICY = (30, 1)


@dataclass(frozen=True, slots=True)
class App:
    """A Docker image for sale. `checksum` is the image's SHA-256; nobody on the way checks it."""

    name: str
    image: str
    checksum: Hash32


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file for sale; `checksum` is its SHA-256, which every worker checks."""

    name: str
    url: str
    checksum: Hash32


@dataclass(frozen=True, slots=True)
class Workerpool:
    """A pool and its policy, in percent of the price of a task."""

    description: str
    worker_stake_ratio: int = DEFAULT_POLICY[0]
    scheduler_reward_ratio: int = DEFAULT_POLICY[1]


@dataclass(frozen=True, slots=True)
class Entry:
    """A registry entry that exists or is about to."""

    address: Contract
    #: What its owner must send; none if it is there as it should be.
    calls: tuple[Call, ...]


def create(owner: Actor, at: PocoAddresses, wanted: Sequence[App | Dataset | Workerpool]) -> list[Contract]:
    """Make each of `wanted` exist with `owner` as its owner; addresses in their order. Waits for one block at most."""
    entries = prepare(owner, at, wanted)
    owner.run([call for entry in entries for call in entry.calls])
    return [entry.address for entry in entries]


def prepare(owner: Actor, at: PocoAddresses, wanted: Sequence[App | Dataset | Workerpool]) -> list[Entry]:
    """What to send for each of `wanted`, for callers that have more to send in the same block.

    An entry with the same content and owner is the same entry: what exists already is used again.
    """
    plans = [_plan(owner.wallet, at, item) for item in wanted]
    answers = owner.rpc.batch([_view(plan.registry, plan.predict.encode(*plan.args)) for plan in plans])
    addresses = [Contract(plan.predict.decode(_text(answer))[0]) for plan, answer in zip(plans, answers, strict=True)]
    codes = owner.rpc.batch([("eth_getCode", (address, "latest")) for address in addresses])
    return [
        Entry(address, () if _text(code) != "0x" else _creation(item, plan, address))
        for item, plan, address, code in zip(wanted, plans, addresses, codes, strict=True)
    ]


def deposits_of(at: PocoAddresses, amounts: Mapping[Wallet, NRlc]) -> list[Call]:
    """Calls by which whoever sends them puts own RLC on these wallets' accounts in the hub."""
    total = NRlc(sum(amounts.values()))
    approval = _call(at.rlc, "approve", calls.approve(at.hub, total))
    return [
        approval,
        *(_call(at.hub, "depositFor", calls.deposit_for(amount, wallet)) for wallet, amount in amounts.items()),
    ]


def open_market(
    owner: Actor,
    payer: Actor,
    at: PocoAddresses,
    wanted: Sequence[App | Dataset | Workerpool],
    deposits: Mapping[Wallet, NRlc],
) -> list[Contract]:
    """`create` as `owner` and fill accounts as `payer`, side by side; addresses of `wanted` once all of it is mined."""
    entries = prepare(owner, at, wanted)
    hashes: list[TxHash] = []
    sent = {owner.wallet: [call for entry in entries for call in entry.calls]}
    sent[payer.wallet] = sent.get(payer.wallet, []) + deposits_of(at, deposits)
    for actor in {actor.wallet: actor for actor in (owner, payer)}.values():
        hashes += actor.send(sent[actor.wallet])
    await_mined(owner.rpc, hashes, seconds=PATIENCE)
    return [entry.address for entry in entries]


# -- registry entries --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """How an entry is made, and how its address is asked for: both take the same arguments."""

    registry: Contract
    create: Function
    predict: Function
    args: tuple[object, ...]


def _plan(owner: Wallet, at: PocoAddresses, item: App | Dataset | Workerpool) -> _Plan:
    match item:
        case App():
            app = (owner, item.name, DOCKER, item.image.encode(), item.checksum, b"")
            return _Plan(at.app_registry, calls.CREATE_APP, calls.PREDICT_APP, app)
        case Dataset():
            file = (owner, item.name, item.url.encode(), item.checksum)
            return _Plan(at.dataset_registry, calls.CREATE_DATASET, calls.PREDICT_DATASET, file)
        case Workerpool():
            pool = (owner, item.description)
            return _Plan(at.workerpool_registry, calls.CREATE_WORKERPOOL, calls.PREDICT_WORKERPOOL, pool)


def _creation(item: App | Dataset | Workerpool, plan: _Plan, address: Contract) -> tuple[Call, ...]:
    creation = _call(plan.registry, plan.create.name, plan.create.encode(*plan.args))
    policy = (item.worker_stake_ratio, item.scheduler_reward_ratio) if isinstance(item, Workerpool) else DEFAULT_POLICY
    if policy == DEFAULT_POLICY:
        return (creation,)
    return (creation, _call(address, "changePolicy", calls.change_policy(*policy)))


def _call(to: Contract, method: str, data: str) -> Call:
    return Call(to, data, calls.gas_limit(method, data))


def _view(to: Contract, data: str) -> tuple[str, tuple[object, ...]]:
    return ("eth_call", ({"to": to, "data": data}, "latest"))


def _text(answer: object) -> str:
    """A hex answer of a batch; an error in its place is raised."""
    if isinstance(answer, RpcError):
        raise answer
    return str(answer)
