"""How fast the watcher follows a chain that it has not seen yet: from the first block to the head, into MongoDB.

a deal now and then       mostly empty blocks, as on most chains: long ranges, each header checked against the last
an event in every block   the other extreme: each block has something to decode and to store
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient, WriteConcern

from beat.watch import LOOKBACK
from bench.rig.bare import inserts_per_second
from bench.rig.long_chain import lengthen
from chain.contracts import calls
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from chain.watch.watcher import Watcher
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewWorkerpool
from ops.market.match import Matched, match
from ops.market.orders import Market, Offer
from ops.poco.accounts import dev_key
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import CHAIN_ID, PocoState, ensure_state
from ops.stack import ports, tools
from ops.stack.servers import anvil, mongodb
from pipeline.store.blocks import ChainStore
from protocol.errors import NotReady
from protocol.ethereum.hexbytes import to_hex
from protocol.types import Contract, Hash32

#: Owner of app and pool, and requester.
OWNER, REQUESTER = 1, 2
#: Category XL, so that no deadline interferes.
CATEGORY = 4
#: Deals on the long chain, evenly spread, and tasks of each, all initialized.
DEALS, TASKS = 10, 10
#: Blocks with an event each, at most: anvil takes longer for each block the longer its chain is.
BUSY_BLOCKS = 1000
#: Gas limits: a block has room for one initialize and no second one, and is less than half full with it (242,000 when
#: alone), so that the base fee does not rise.
INITIALIZE_GAS, BLOCK_GAS = 300_000, 520_000
#: The first block that a saved chain keeps: anvil makes a new genesis whenever it loads one.
FIRST = 1
#: Blocks mined per call, for the same reason.
_MINED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Case:
    """A saved chain: how it is made in a folder of its own, which returns the pool and its number of events."""

    name: str
    make: Callable[[Path, PocoState, int], tuple[Contract, int]]


def run(*, blocks: int, only: Sequence[str] = ()) -> Iterator[str]:
    """Measure how fast the watcher reads a long chain: a line of JSON per case; `only`: words in names of cases."""
    state = ensure_state(tools.root() / ".sluice")
    for case in (Case("a deal now and then", _make_long_chain), Case("an event in every block", _make_busy_chain)):
        if not only or any(word in case.name for word in only):
            yield json.dumps(_measure_case(case, state, blocks))


def _measure_case(case: Case, state: PocoState, blocks: int) -> dict[str, object]:
    """Make the case's chain, let a fresh watcher follow it, and return the figures."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True))
        )
        saved = folder / "chain.json"
        shutil.copy(state.path, saved)
        pool, events = case.make(saved, state, blocks)
        rpc = stack.enter_context(_run_node(saved, folder / "node"))
        server = mongodb.start(folder / "mongodb", ports.free_port())
        stack.callback(server.stop)
        client = stack.enter_context(MongoClient[dict[str, Any]](server.uri))
        store = ChainStore(client.get_database("bench", write_concern=WriteConcern(w="majority", j=True)))
        store.ensure_indexes()
        bare = inserts_per_second(client["bare"])
        hub = Hub(rpc, state.addresses.hub)
        head = hub.head()
        began = time.monotonic()
        watcher = Watcher(rpc, hub, pool, store, LOOKBACK, FIRST)
        seen = sum(len(caught.seen) for caught in watcher.catch_up(head))
        seconds = time.monotonic() - began
        if seen != events or store.logs.count() != events:
            why = f"it stored {store.logs.count()} of {events} events"
            raise NotReady(part="The watcher", seconds=round(seconds), log="standard error", why=why)
        return {
            "case": case.name,
            "blocks": head,
            "events": events,
            "seconds": round(seconds, 2),
            "blocks_per_second": round(head / seconds),
            "bare_inserts_per_second": round(bare),
            "share_of_bare_inserts": round(head / seconds / bare, 3),
        }


def _make_long_chain(saved: Path, state: PocoState, blocks: int) -> tuple[Contract, int]:
    """Save a chain of DEALS deals, each followed by as many empty blocks; the pool and the number of events."""
    with _run_node(saved, saved.parent / "make") as rpc:
        offer = _open_market(rpc, state, TASKS * DEALS)
    for number in range(DEALS):
        with _run_node(saved, saved.parent / f"make-{number}") as rpc:
            _initialize_tasks(rpc, state, _buy_deal(rpc, state, offer, TASKS))
        lengthen(saved, blocks // DEALS)
    return offer.workerpool.workerpool, DEALS * (1 + TASKS)


def _make_busy_chain(saved: Path, state: PocoState, blocks: int) -> tuple[Contract, int]:
    """Save a chain of one bag with a block for each TaskInitialize; the pool and the number of events."""
    tasks = min(blocks, BUSY_BLOCKS)
    with _run_node(saved, saved.parent / "make") as rpc:
        offer = _open_market(rpc, state, tasks)
        deal = _buy_deal(rpc, state, offer, tasks)
        rpc.call("evm_setAutomine", False)
        rpc.call("evm_setBlockGasLimit", hex(BLOCK_GAS))
        owner, hub = DirectSender(dev_key(OWNER), rpc, CHAIN_ID), state.addresses.hub
        data = [calls.initialize(deal.deal_id, index) for index in range(tasks)]
        owner.send([TxRequest(hub, each, INITIALIZE_GAS) for each in data])
        for _ in range(0, tasks, _MINED_AT_ONCE):
            rpc.call("anvil_mine", hex(_MINED_AT_ONCE))
    return offer.workerpool.workerpool, 1 + tasks


# -- parts -------------------------------------------------------------------------------------------------------------


@contextmanager
def _run_node(saved: Path, folder: Path) -> Iterator[Rpc]:
    """A node on the saved chain that mines a block per transaction, and saves the chain when it ends."""
    node = anvil.start(folder, ports.free_port(), block_time=None, keep=saved, extra=("--prune-history",), seconds=60)
    try:
        with Rpc(node.rpc_url, timeout=30.0) as rpc:
            yield rpc
    finally:
        node.stop()


def _open_market(rpc: Rpc, state: PocoState, volume: int) -> Offer:
    """Register an app and a workerpool and fund the requester; sell orders for `volume` tasks."""
    owner, requester = (DirectSender(dev_key(index), rpc, CHAIN_ID) for index in (OWNER, REQUESTER))
    market = Market(CHAIN_ID, state.addresses.hub)
    app, pool = contracts.open_market(
        owner,
        requester,
        state.addresses,
        [NewApp("bench", "bench", Hash32(to_hex(bytes(32)))), NewWorkerpool("bench")],
        {},
    )
    return Offer(
        orders.offer_app(market, owner.key, app, volume=volume),
        orders.offer_work(market, owner.key, pool, category=CATEGORY, volume=volume),
    )


def _buy_deal(rpc: Rpc, state: PocoState, offer: Offer, tasks: int) -> Matched:
    """Match one deal of so many tasks."""
    requester, market = DirectSender(dev_key(REQUESTER), rpc, CHAIN_ID), Market(CHAIN_ID, state.addresses.hub)
    return match(requester, market, [(offer, orders.request(market, requester.key, offer, volume=tasks))])[0]


def _initialize_tasks(rpc: Rpc, state: PocoState, deal: Matched) -> None:
    """Initialize all tasks of a deal in one transaction."""
    data = calls.initialize_array([(deal.deal_id, index) for index in range(len(deal.tasks))])
    call = TxRequest(state.addresses.hub, data, calls.gas_limit("initializeArray", data))
    DirectSender(dev_key(OWNER), rpc, CHAIN_ID).run([call])
