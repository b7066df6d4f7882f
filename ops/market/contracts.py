"""Apps, datasets and workerpools, and stakes for their users: everything a market needs, in one block.

The address of a registry entry follows from its content and owner (CREATE2), so it is known before the entry exists:
creations, the pool's policy and all deposits go out together instead of one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.contracts import calls
from chain.contracts.contract import Abi, checksummed, contract
from chain.rpc.client import JsonRpc
from ops.poco.deploy import PocoAddresses
from ops.poco.receipts import await_mined
from ops.poco.sender import WAIT_SECONDS, DirectSender, TxRequest
from protocol.types import Contract, Hash32, NRlc, TxHash, Wallet

if TYPE_CHECKING:
    from web3.contract import Contract as Web3Contract

#: The only kind of app there is (iexec-worker 9.2).
DOCKER = "DOCKER"
#: Policy of a new workerpool in percent of a task's price (Workerpool.sol): worker's stake, scheduler's share.
DEFAULT_POLICY = (30, 1)


@dataclass(frozen=True, slots=True)
class NewApp:
    """A Docker image for sale. `checksum` is the image's SHA-256; no contract and no worker checks it."""

    name: str
    image: str
    checksum: Hash32


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A file for sale; `checksum` is its SHA-256, which every worker checks."""

    name: str
    url: str
    checksum: Hash32


@dataclass(frozen=True, slots=True)
class NewWorkerpool:
    """A pool and its policy, in percent of the price of a task."""

    description: str
    worker_stake_ratio: int = DEFAULT_POLICY[0]
    scheduler_reward_ratio: int = DEFAULT_POLICY[1]


@dataclass(frozen=True, slots=True)
class Entry:
    """A registry entry that exists or is about to."""

    address: Contract
    #: What its owner must send; none if it is there as it should be.
    calls: tuple[TxRequest, ...]


def create(
    owner: DirectSender, at: PocoAddresses, wanted: Sequence[NewApp | NewDataset | NewWorkerpool]
) -> list[Contract]:
    """Register each of `wanted` with `owner` as its owner; addresses in their order. Waits for one block at most."""
    entries = prepare(owner, at, wanted)
    owner.run([call for entry in entries for call in entry.calls])
    return [entry.address for entry in entries]


def prepare(
    owner: DirectSender, at: PocoAddresses, wanted: Sequence[NewApp | NewDataset | NewWorkerpool]
) -> list[Entry]:
    """Address and transactions of each registry entry, for callers that send more in the same block.

    An entry with the same content and owner is the same entry: for one that exists there is nothing to send.
    """
    entries = []
    for item in wanted:
        plan = _plan_entry(owner, at, item)
        address = Contract(plan.registry.functions[plan.predict](*plan.args).call().lower())
        exists = plan.registry.w3.eth.get_code(checksummed(address))
        entries.append(Entry(address, () if exists else _creation_calls(owner, item, plan, address)))
    return entries


def deposits_of(rpc: JsonRpc, at: PocoAddresses, amounts: Mapping[Wallet, NRlc]) -> list[TxRequest]:
    """Calls that deposit the sender's RLC on these wallets' accounts in the hub."""
    rlc, hub = contract(rpc, Abi.RLC, at.rlc, "approve"), contract(rpc, Abi.HUB, at.hub, "depositFor")
    approval = _call_request(rlc, "approve", (hub.address, sum(amounts.values())))
    deposits = ((amount, checksummed(wallet)) for wallet, amount in amounts.items())
    return [approval, *(_call_request(hub, "depositFor", deposit) for deposit in deposits)]


def open_market(
    owner: DirectSender,
    payer: DirectSender,
    at: PocoAddresses,
    wanted: Sequence[NewApp | NewDataset | NewWorkerpool],
    deposits: Mapping[Wallet, NRlc],
) -> list[Contract]:
    """Create `wanted` as `owner` and deposit as `payer` at the same time; addresses of `wanted`, once all is mined."""
    entries = prepare(owner, at, wanted)
    hashes: list[TxHash] = []
    sent = {owner.wallet: [call for entry in entries for call in entry.calls]}
    sent[payer.wallet] = sent.get(payer.wallet, []) + deposits_of(payer.rpc, at, deposits)
    for sender in {sender.wallet: sender for sender in (owner, payer)}.values():
        hashes += sender.send(sent[sender.wallet])
    await_mined(owner.rpc, hashes, seconds=WAIT_SECONDS)
    return [entry.address for entry in entries]


# -- registry entries --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """How an entry is made, and how its address is asked for: both functions take the same arguments."""

    registry: Web3Contract
    create: str
    predict: str
    args: tuple[object, ...]


def _plan_entry(owner: DirectSender, at: PocoAddresses, item: NewApp | NewDataset | NewWorkerpool) -> _Plan:
    """How to create this entry and how to predict its address."""
    wallet = checksummed(owner.wallet)
    match item:
        case NewApp():
            app = (wallet, item.name, DOCKER, item.image.encode(), item.checksum, b"")
            return _plan(owner, Abi.APP_REGISTRY, at.app_registry, "createApp", "predictApp", app)
        case NewDataset():
            file = (wallet, item.name, item.url.encode(), item.checksum)
            return _plan(owner, Abi.DATASET_REGISTRY, at.dataset_registry, "createDataset", "predictDataset", file)
        case NewWorkerpool():
            pool = (wallet, item.description)
            registry = at.workerpool_registry
            return _plan(owner, Abi.WORKERPOOL_REGISTRY, registry, "createWorkerpool", "predictWorkerpool", pool)


def _plan(
    owner: DirectSender, abi: Abi, registry: Contract, create: str, predict: str, args: tuple[object, ...]
) -> _Plan:
    """The plan with web3.py's object of the registry."""
    return _Plan(contract(owner.rpc, abi, registry, create, predict), create, predict, args)


def _creation_calls(
    owner: DirectSender, item: NewApp | NewDataset | NewWorkerpool, plan: _Plan, address: Contract
) -> tuple[TxRequest, ...]:
    """The transactions that create an entry; a workerpool with a policy of its own needs a second one."""
    creation = _call_request(plan.registry, plan.create, plan.args)
    policy = (
        (item.worker_stake_ratio, item.scheduler_reward_ratio) if isinstance(item, NewWorkerpool) else DEFAULT_POLICY
    )
    if policy == DEFAULT_POLICY:
        return (creation,)
    workerpool = contract(owner.rpc, Abi.WORKERPOOL, address, "changePolicy")
    return (creation, _call_request(workerpool, "changePolicy", policy))


def _call_request(to: Web3Contract, method: str, args: Sequence[object]) -> TxRequest:
    """The transaction that calls `method` of a contract."""
    data = to.encode_abi(method, args)
    return TxRequest(Contract(to.address.lower()), data, calls.gas_limit(method, data))
