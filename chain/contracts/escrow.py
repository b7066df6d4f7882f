"""Who was paid and who paid, by the hub's own escrow logs (IexecEscrow, IexecERC20Core of @iexec/poco 6.1.0).

Transfer(from, to, amount)   changes the free stake of both, whatever the reason; of both addresses an index exists
Lock(owner, amount)          follows a Transfer to the hub
Unlock(owner, amount)        follows a Transfer from the hub
Reward(owner, amount, ref)   follows a Transfer from the hub; ref is the task id
Seize(owner, amount, ref)    alone: of what is locked. The requester's price, a liar's stake, a scheduler that let a
                             task fail
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from chain.contracts.decode import topic
from chain.contracts.views import MOST
from protocol.errors import BadMessage
from protocol.poco.money import Kind, Movement
from protocol.types import ZERO_ADDRESS, BlockHash, BlockNumber, Contract, Hash32, TaskId, TxHash, Wallet

TRANSFER = topic("Transfer(address,address,uint256)")
LOCK, UNLOCK = topic("Lock(address,uint256)"), topic("Unlock(address,uint256)")
REWARD, SEIZE = topic("Reward(address,uint256,bytes32)"), topic("Seize(address,uint256,bytes32)")
#: Events that have no index by wallet.
OF_ESCROW = (LOCK, UNLOCK, REWARD, SEIZE)
#: Where the hub keeps what it seized from schedulers (KITTY_ADDRESS).
KITTY = Wallet("0x99c2268479b93fde36232351229815df80837e23")
#: Sign of each log's amount in what a task brought.
SIGNS = {REWARD: 1, SEIZE: -1}
#: Hex digits of one ABI word, and of the zeros in front of an address.
_WORD, _PAD = 64, 24


class Gain(NamedTuple):
    """What one wallet gained by one task, nRLC; negative: lost."""

    wallet: Wallet
    task: TaskId
    amount: int


def gains(logs: Iterable[Mapping[str, Any]]) -> Iterator[Gain]:
    """The gains among a hub's raw logs; others are left out. What is locked and unlocked again is no gain."""
    for log in logs:
        sign = SIGNS.get(log["topics"][0].lower()) if log["topics"] else None
        if sign is not None:
            owner, amount, reference = _words(log, 3)
            yield Gain(_wallet(owner), TaskId("0x" + reference), sign * int(amount, 16))


def movements(raw_logs: Iterable[Mapping[str, Any]], hub: Contract, wallet: Wallet) -> list[Movement]:
    """The wallet's movements among raw logs, and what its tasks gave to others or took from them, in chain order.

    `raw_logs`: all logs of some blocks with a topic of OF_ESCROW, and all Transfers from or to the wallet; twice does
    no harm. Raises BadMessage if one of a pair is missing: then the node left logs out.
    """
    logs = {
        entry.place: entry
        for raw in raw_logs
        if raw["address"].lower() == hub.lower() and (entry := _entry(raw)) is not None
    }
    ordered = [logs[place] for place in sorted(logs)]
    paid = {(entry.tx_hash, entry.task) for entry in ordered if entry.topic == REWARD and entry.owner == wallet}
    found: list[Movement] = []
    for entry in ordered:
        kind = _kind_for(entry, logs, hub, wallet)
        if kind is None and entry.topic in SIGNS and (entry.tx_hash, entry.task) in paid:
            kind = None if entry.owner in (wallet, KITTY) else Kind.REWARD if entry.topic == REWARD else Kind.SEIZE
        if kind is not None:
            found.append(entry.movement(wallet if entry.topic == TRANSFER else entry.owner, kind))
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    """One log. `owner`: whose account; of a Transfer the one that gives, and `to` the one that gets."""

    topic: Hash32
    owner: Wallet
    to: Wallet | None
    amount: int
    task: TaskId | None
    block: BlockNumber
    block_hash: BlockHash
    tx_hash: TxHash
    log_index: int

    @property
    def place(self) -> tuple[BlockNumber, BlockHash, int]:
        """Block number, block hash and log index: sorted by it, logs are in chain order."""
        return self.block, self.block_hash, self.log_index

    def beside(self, logs: Mapping[tuple[BlockNumber, BlockHash, int], _Entry], step: int) -> _Entry | None:
        """The log so many places further in the same block, if it is among `logs`."""
        return logs.get((self.block, self.block_hash, self.log_index + step))

    def movement(self, owner: Wallet, kind: Kind) -> Movement:
        """The movement that it is for this owner."""
        return Movement(owner, kind, self.amount, self.task, self.block, self.block_hash, self.tx_hash, self.log_index)


def _kind_for(
    entry: _Entry, logs: Mapping[tuple[BlockNumber, BlockHash, int], _Entry], hub: Contract, wallet: Wallet
) -> Kind | None:
    """What the log means for the wallet's account; None if it is about another account, or is the Transfer that comes
    before a lock, unlock or reward, which counts once. Raises BadMessage if such a Transfer is missing.
    """
    if entry.topic == TRANSFER:
        return _kind_of_transfer(entry, logs, hub, wallet)
    if entry.owner != wallet:
        return None
    if entry.topic == SEIZE:
        return Kind.SEIZE
    before = entry.beside(logs, -1)
    ends = (wallet, hub) if entry.topic == LOCK else (hub, wallet)
    if before is None or before.topic != TRANSFER or (before.owner, before.to, before.amount) != (*ends, entry.amount):
        raise BadMessage(why=f"the node shows log {entry.log_index} of {entry.tx_hash} without the Transfer before it")
    if entry.topic != REWARD:
        return Kind.LOCK if entry.topic == LOCK else Kind.UNLOCK
    source = entry.beside(logs, -2)
    of_kitty = source is not None and (source.topic, source.owner, source.amount, source.task) == (
        SEIZE,
        KITTY,
        entry.amount,
        entry.task,
    )
    return Kind.KITTY if of_kitty else Kind.REWARD


def _kind_of_transfer(
    entry: _Entry, logs: Mapping[tuple[BlockNumber, BlockHash, int], _Entry], hub: Contract, wallet: Wallet
) -> Kind | None:
    """What an RLC transfer from or to the wallet means for its account; None if a lock, unlock or reward follows, which
    counts instead.
    """
    gives, gets = entry.owner == wallet, entry.to == wallet
    if gives == gets:
        return None
    other = entry.to if gives else entry.owner
    if str(other) == ZERO_ADDRESS:
        return Kind.WITHDRAWAL if gives else Kind.DEPOSIT
    after = entry.beside(logs, 1)
    partners = (LOCK,) if gives else (UNLOCK, REWARD)
    if str(other) == hub and after is not None and after.topic in partners and after.owner == wallet:
        return None
    return Kind.SENT if gives else Kind.RECEIVED


def _entry(raw: Mapping[str, Any]) -> _Entry | None:
    """The log, if it is one of the escrow's. Raises BadMessage if it is malformed."""
    topics: Sequence[str] = [str(each).lower() for each in raw["topics"]]
    kind = Hash32(topics[0]) if topics else None
    to: Wallet | None = None
    task: TaskId | None = None
    if kind == TRANSFER and len(topics) == 3:
        owner, to, (amount,) = _wallet(topics[1][2:]), _wallet(topics[2][2:]), _words(raw, 1)
    elif kind in (LOCK, UNLOCK):
        name, amount = _words(raw, 2)
        owner = _wallet(name)
    elif kind in SIGNS:
        name, amount, reference = _words(raw, 3)
        owner, task = _wallet(name), TaskId("0x" + reference)
    else:
        return None
    if int(amount, 16) > MOST:
        raise BadMessage(why=f"a log of {raw['transactionHash']} moves more nRLC than there are")
    return _Entry(
        kind,
        owner,
        to,
        int(amount, 16),
        task,
        BlockNumber(int(raw["blockNumber"], 16)),
        BlockHash(raw["blockHash"].lower()),
        TxHash(raw["transactionHash"].lower()),
        int(raw["logIndex"], 16),
    )


def _words(raw: Mapping[str, Any], count: int) -> list[str]:
    """The data of a log as words of 64 hex digits. Raises BadMessage unless there are `count`."""
    data = str(raw["data"])[2:].lower()
    if len(data) != count * _WORD:
        raise BadMessage(why=f"a log of the hub's escrow has {len(data) // 2} bytes of data, not {count * _WORD // 2}")
    return [data[start : start + _WORD] for start in range(0, len(data), _WORD)]


def _wallet(word: str) -> Wallet:
    """The wallet in a 32-byte topic."""
    return Wallet("0x" + word[_PAD:])
