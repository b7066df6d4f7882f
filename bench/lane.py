"""How fast one wallet's lane is: intents mined per second, also as a share of what a bare script of
`eth_sendRawTransaction` gets mined of the same calls, and how full it keeps the blocks.

Each case has a chain of its own with real PoCo, a MongoDB of its own with durable writes, and one process with one
wallet, as the scheduler's lane runs: woken by every head. Time counts from the block right after which the intents are
submitted to the one that mines the last of them: anything between two blocks would count as up to a block more or less.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from bench.rig.bare import transactions_per_second
from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.encoding import PocoEncoder
from chain.lane.rules.poco import PocoReadiness
from chain.lane.run import Lane
from chain.lane.signer import KeySigner
from chain.lane.store.mongo import MongoStore
from chain.rpc.answers import decode_replies, values
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewWorkerpool
from ops.market.match import Matched, match
from ops.market.orders import Market, Offer
from ops.poco.accounts import dev_key
from ops.poco.sender import DirectSender
from ops.poco.state import CHAIN_ID, PocoState, ensure_state
from ops.stack import ports, tools
from ops.stack.servers import anvil, mongodb
from protocol.errors import NotReady
from protocol.ethereum.hexbytes import to_hex
from protocol.types import BlockNumber, Hash32, Wallet

#: Owner of app and pool (its wallet is the lane's), and requester.
OWNER, REQUESTER = 1, 2
#: Category XL: ten hours, so that no deadline interferes.
CATEGORY = 4
BLOCK_TIME = 1.0
BIG_BLOCK, USUAL_BLOCK = 1_000_000_000, 30_000_000
#: Seconds after which a case is given up.
WAIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement: `intents` of a kind, at a block gas limit, with so many nonces open at once."""

    name: str
    #: `initialize` of real tasks, or `call`: pay one wei.
    method: str
    intents: int
    block_gas: int
    max_in_flight: int
    #: Intents per array call.
    batch: int = 1


CASES = (
    Case("initialize, one a transaction, 1e9 gas", "initialize", 12_000, BIG_BLOCK, 3_000),
    Case("initializeArray of 50, 1e9 gas", "initialize", 12_000, BIG_BLOCK, 100, batch=50),
    Case("payments, 1e9 gas", "call", 12_000, BIG_BLOCK, 3_000),
    Case("initialize, one a transaction, 30e6 gas", "initialize", 1_500, USUAL_BLOCK, 400),
    Case("initializeArray of 10, 30e6 gas", "initialize", 2_000, USUAL_BLOCK, 48, batch=10),
    Case("initialize, one a transaction, 30e6 gas, 16 in flight", "initialize", 150, USUAL_BLOCK, 16),
)


def run(*, scale: float = 1.0, only: Sequence[str] = ()) -> Iterator[str]:
    """Measure one wallet's lane: a line of JSON per case.

    `scale` multiplies the intents; `only` picks cases by words in their names.
    """
    state = ensure_state(tools.root() / ".sluice")
    for case in CASES:
        if not only or any(word in case.name for word in only):
            yield json.dumps(_measure_case(case, max(1, int(case.intents * scale)), state))


def _measure_case(case: Case, intents: int, state: PocoState) -> dict[str, object]:
    """Run one case on a chain and database of its own; its figures."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-", ignore_cleanup_errors=True))
        )
        node = anvil.start(
            folder / "anvil", ports.free_port(), block_time=BLOCK_TIME, load=state.path, block_gas=case.block_gas
        )
        stack.callback(node.stop)
        server = mongodb.start(folder / "mongodb", ports.free_port())
        stack.callback(server.stop)
        rpc = stack.enter_context(Rpc(node.rpc_url, timeout=30.0))
        client = stack.enter_context(MongoClient[dict[str, Any]](server.uri))
        store = MongoStore(client["bench"])
        store.ensure_indexes()
        wallet = dev_key(OWNER).wallet
        # As many for the bare script, on the same chain just before.
        both = (
            _payment_intents(wallet, 2 * intents)
            if case.method == "call"
            else _initialize_intents(rpc, state, wallet, 2 * intents)
        )
        encoder = PocoEncoder(state.addresses.hub, batch=case.batch)
        bare_calls = [encoder.encode(group) for group in encoder.group(both[:intents])]
        wanted = both[intents:]
        bare = transactions_per_second(rpc, node.ws_url, dev_key(OWNER), CHAIN_ID, bare_calls)
        lane = Lane(
            CHAIN_ID,
            store,
            rpc,
            KeySigner(dev_key(OWNER)),
            PocoReadiness(rpc, state.addresses.hub),
            encoder,
            LanePolicy(max_in_flight=case.max_in_flight),
        )
        began = _run_until_mined(lane, store, wanted, node.ws_url, rpc)
        return _figures_of(case, wanted, store, rpc, began, bare * intents / len(bare_calls))


def _run_until_mined(lane: Lane, store: MongoStore, wanted: Sequence[Intent], ws_url: str, rpc: Rpc) -> BlockNumber:
    """Submit the intents when a block has come, and run the lane at each head until all are mined; returns that block.

    Raises NotReady.
    """
    stop = threading.Event()
    deadline = time.monotonic() + WAIT_SECONDS
    present, began = None, None
    for number in heads(ws_url, rpc, BLOCK_TIME, stop):
        present = number if present is None else present
        if number == present:
            continue
        if began is None:
            began = number
            lane.submit(wanted)
        while lane.run().wake_again:
            continue
        if not store.count(lane.id, (IntentState.QUEUED, IntentState.SENT)):
            break
        if time.monotonic() > deadline:
            left = store.count(lane.id, (IntentState.QUEUED, IntentState.SENT))
            raise NotReady(
                part="The lane", seconds=WAIT_SECONDS, log="standard error", why=f"{left} intents are not mined."
            )
    stop.set()
    assert began is not None  # only a head that was followed by another ends the loop
    return began


def _figures_of(
    case: Case, wanted: Sequence[Intent], store: MongoStore, rpc: Rpc, began: BlockNumber, bare: float
) -> dict[str, object]:
    """Intents per second, blocks and gas of a finished case. `began`: the head when the intents were submitted; `bare`:
    what the bare script did a second.
    """
    ended = store.intents([intent.key for intent in wanted])
    mined = [intent.block for intent in ended if intent.block is not None]
    first, last = min(mined), max(mined)
    numbers = [began, *range(first, last + 1)]
    replies = rpc.batch([("eth_getBlockByNumber", (hex(number), False)) for number in numbers])
    at_begin, *headers = values(decode_replies(replies, dict), rpc.name)
    seconds = int(headers[-1]["timestamp"], 16) - int(at_begin["timestamp"], 16)
    # The last block holds what was left over; it says nothing about how full blocks are kept.
    whole = headers[:-1] or headers
    share = sum(int(header["gasUsed"], 16) for header in whole) / (len(whole) * case.block_gas)
    return {
        "case": case.name,
        "intents": len(wanted),
        "mined": len(mined),
        "transactions": len(store.records(wanted[0].lane, list(NonceState))),
        "blocks": len(headers),
        "seconds": seconds,
        "intents_per_second": round(len(mined) / seconds, 1),
        "bare_intents_per_second": round(bare, 1),
        "share_of_bare": round(len(mined) / seconds / bare, 3),
        "block_gas_share": round(share, 3),
    }


def _payment_intents(wallet: Wallet, number: int) -> list[Intent]:
    """Intents that pay one wei each to different accounts."""
    return [
        Intent.new(
            CHAIN_ID,
            wallet,
            "call",
            f"payment-{index}",
            {"to": f"0x{index + 2**80:040x}", "gas": 21_000, "value": 1},
            1.0,
        )
        for index in range(number)
    ]


def _initialize_intents(rpc: Rpc, state: PocoState, wallet: Wallet, number: int) -> list[Intent]:
    """Initialize intents for one bag of `number` real tasks."""
    deal = _buy_bag(rpc, state, number)
    return [
        Intent.new(CHAIN_ID, wallet, "initialize", task, {"deal_id": deal.deal_id, "index": index}, 1.0)
        for index, task in enumerate(deal.tasks)
    ]


def _buy_bag(rpc: Rpc, state: PocoState, number: int) -> Matched:
    """Register an app and a workerpool, and match one bag of `number` tasks."""
    owner, requester = (DirectSender(dev_key(index), rpc, CHAIN_ID) for index in (OWNER, REQUESTER))
    market = Market(CHAIN_ID, state.addresses.hub)
    app, pool = contracts.open_market(
        owner,
        requester,
        state.addresses,
        [NewApp("bench", "bench", Hash32(to_hex(bytes(32)))), NewWorkerpool("bench")],
        {},
    )
    offer = Offer(
        orders.offer_app(market, owner.key, app, volume=number),
        orders.offer_work(market, owner.key, pool, category=CATEGORY, volume=number),
    )
    request = orders.request(market, requester.key, offer, volume=number)
    return match(requester, market, [(offer, request)])[0]
