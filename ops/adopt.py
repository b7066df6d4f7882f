"""`sluice scheduler adopt`: a fresh database for a pool that another scheduler ran, from what is on chain.

    database empty, wallet owns the workerpool ─► nobody else uses the wallet ─► open work found on chain
                                                                                   │ told, and confirmed
                              the watcher's first block stored: the oldest open deal's ◄┘

That is all: the watcher reads deals, votes and reveals from there, as after any start, and every task is decided upon
by what the chain says. Nonces begin at the wallet's account nonce, so transactions that another scheduler has sent must
be in blocks before. Another scheduler is seen by what it sends in a few blocks, or at this RabbitMQ. One that has
nothing to send, with a broker of its own, is not seen: the operator has to stop it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from beat.watch import LOOKBACK
from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.lane.store.mongo import MongoStore
from chain.rpc.pool import connect
from config.connections.mongodb import while_indexing
from config.settings import Settings
from ops.at_work import require_no_consumer, watch
from ops.backup.contents import Pool
from ops.in_flight import account_nonces, wait_for_mined
from pipeline.flow.takeover import OpenWork, Progress, block_at, find_open_work
from pipeline.store.client import Store, answering, database
from pipeline.store.database.copies import Copies
from protocol.errors import NotPossible
from protocol.types import BlockNumber, Contract, Wallet

#: Blocks for which the wallet must send nothing, and seconds at least: a scheduler at work sends with most of them.
QUIET_BLOCKS, QUIET_SECONDS = 3, 2.0
#: Blocks below the head in which the search begins: those above may still be replaced, and are read by the watcher.
BELOW_HEAD = 2


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was found. `nonce`: the first that the lane will use; `pending`: transactions in no block yet."""

    workerpool: Contract
    wallet: Wallet
    work: OpenWork
    nonce: int
    pending: int


def preview(settings: Settings, *, lowest: int, wait: float, progress: Progress) -> Adoption:
    """What an adoption would take over; nothing is written. `lowest`: block below which no open deal is sought; `wait`:
    seconds for the wallet's transactions to get into blocks.

    Raises NotPossible, BadSetting, BadKeystore, WrongChain, Unavailable, RpcError.
    """
    pool, key = Pool.of(settings), load_key(settings)
    workerpool = Contract(pool.workerpool)
    with answering():
        if not Copies(database(settings)).is_empty():
            what = f"The database {settings.mongodb_database} is not empty, and adopt starts a fresh one"
            raise NotPossible(
                what=f"{what}: name another in SLUICE_MONGODB_DATABASE, or run the scheduler, which goes on with this"
                " one. `sluice audit` compares it with the chain."
            )
    with closing(connect(settings)) as rpc:
        hub = Hub(rpc, Contract(pool.hub))
        hub.check_chain(settings.model_copy(update={"workerpool": pool.workerpool}))
        owner = hub.workerpool(workerpool).owner
        if owner != key.wallet:
            what = f"The wallet {key.wallet} does not own the workerpool {workerpool}, its owner is {owner}"
            raise NotPossible(what=f"{what}: set SLUICE_KEYSTORE to the owner's wallet.")
        pending = wait_for_mined(rpc, [key.wallet], wait)
        nonce = require_quiet(lambda: account_nonces(rpc, [key.wallet]), settings.block_time)
        require_no_consumer(settings, [key.wallet])
        head = block_at(hub, BlockNumber(max(0, hub.head() - BELOW_HEAD)))
        work = find_open_work(hub, workerpool, key.wallet, head, BlockNumber(lowest), progress)
    return Adoption(workerpool, key.wallet, work, nonce, pending)


def adopt(settings: Settings, found: Adoption) -> BlockNumber:
    """Have the scheduler's watcher begin at the oldest open deal, or lower, below all that may still be replaced;
    returns that block. Start the scheduler afterwards.

    Raises NotPossible if a transaction of the wallet is in no block yet, Unavailable.
    """
    if found.pending:
        raise NotPossible(
            what=f"{found.pending} transactions of {found.wallet} are in no block yet, at nonces that the lane would"
            " use too: stop what sends them, and run this again later, or with a longer --wait. One that never gets"
            " into a block must be replaced with the program that sent it."
        )
    with closing(connect(settings)) as rpc, answering():
        hub = Hub(rpc, Contract(Pool.of(settings).hub))
        # Of what is stored first nothing is known below: should a reorg take it, the watcher could not go on.
        lasting = found.work.head.number - LOOKBACK
        before = block_at(hub, BlockNumber(max(0, min(found.work.first_block - 1, lasting))))
        db = database(settings)
        store = Store.of(db)
        store.ensure_indexes()
        with while_indexing():
            MongoStore(db).ensure_indexes()
        store.chain.begin_behind(before)
    return BlockNumber(before.number + 1)


def require_quiet(
    count: Callable[[], tuple[int, int]],
    block_time: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """The first nonce that nothing has, mined or not, once it has stood still. Raises NotPossible if it moves."""
    seconds = max(QUIET_SECONDS, QUIET_BLOCKS * block_time)
    first, now = watch(lambda: sum(count()), seconds, clock=clock, sleep=sleep)
    if now != first:
        raise NotPossible(
            what=f"Something sends transactions with this wallet now (its nonce went from {first} to {now}): stop"
            " the scheduler that runs the pool, on every machine, and run this again."
        )
    return first
