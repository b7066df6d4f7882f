"""A pool on the real contracts, with the lanes of its owner and of workers, on a chain that a test mines by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chain.lane.model.intent import Intent, IntentState
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.client import JsonRpc
from config.settings import read_settings
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewWorkerpool
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.state import CHAIN_ID
from protocol.poco.authorization import sign_authorization
from protocol.poco.orders import RequestOrder
from protocol.poco.seal import result_hash, result_seal
from protocol.types import Hash32, TaskId
from tests.integration.conftest import Chain

OWNER, REQUESTER, WORKER = 1, 2, 3
DIGEST = Hash32("0x" + "ab" * 32)
#: Of the category: contributions are taken for seven times this many seconds.
CATEGORY_SECONDS = 10
#: Within so many all has happened that will.
MANY_BLOCKS = 50


class Pool:
    """A pool, its owner's lane, and a worker's."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        owner, requester = chain.sender(OWNER), chain.sender(REQUESTER)
        wanted: list[NewApp | contracts.NewDataset | NewWorkerpool] = [
            NewApp("app", "app", Hash32("0x" + "11" * 32)),
            NewWorkerpool("pool"),
        ]
        self.app, self.pool = contracts.open_market(owner, requester, chain.at, wanted, {})
        self.folder = folder
        self.owner = self.lane(OWNER)
        self.worker = self.lane(WORKER)

    def lane(self, account: int, *, rpc: JsonRpc | None = None, **settings: object) -> Lane:
        """The lane of an account, as after a restart; `settings` go on top. `rpc`: another face of the node."""
        key = self.chain.sender(account).key
        store = SqliteStore(self.folder / f"{account}.db")
        chosen = read_settings(chain_id=CHAIN_ID, hub=self.chain.at.hub, finality_blocks=3, **settings)
        return poco_lane(chosen, rpc or self.chain.rpc, key, store)

    def buy(self, volume: int, trust: int = 1) -> Matched:
        return self.match(self.purchase(volume, trust))

    def purchase(self, volume: int, trust: int = 1) -> tuple[Offer, RequestOrder]:
        """Signed orders; matched twice on different branches of a chain, they make the same deal."""
        market, key = self.chain.market, self.chain.sender(OWNER).key
        offer = Offer(
            orders.offer_app(market, key, self.app),
            orders.offer_work(market, key, self.pool, category=TEST_10_CATEGORY),
        )
        return offer, orders.request(market, self.chain.sender(REQUESTER).key, offer, volume=volume, trust=trust)

    def match(self, purchase: tuple[Offer, RequestOrder]) -> Matched:
        return match(self.chain.sender(REQUESTER), self.chain.market, [purchase])[0]

    def initialize(self, deal: Matched, index: int) -> Intent:
        args = {"deal_id": deal.deal_id, "index": index}
        return Intent.new(CHAIN_ID, self.owner.id.wallet, "initialize", deal.tasks[index], args, float(index))

    def contribute(self, task: TaskId, voter: Lane | None = None) -> Intent:
        wallet = (voter or self.worker).id.wallet
        args = {
            "result_hash": result_hash(task, DIGEST),
            "result_seal": result_seal(wallet, task, DIGEST),
            "authorization": sign_authorization(self.chain.sender(OWNER).key, wallet, task),
        }
        return Intent.new(CHAIN_ID, wallet, "contribute", task, args)

    def reveal(self, task: TaskId, voter: Lane | None = None) -> Intent:
        return Intent.new(CHAIN_ID, (voter or self.worker).id.wallet, "reveal", task, {"digest": DIGEST})

    def solo(self, task: TaskId) -> Intent:
        wallet = self.worker.id.wallet
        authorization = sign_authorization(self.chain.sender(OWNER).key, wallet, task)
        args = {"digest": DIGEST, "results": "0x", "authorization": authorization}
        return Intent.new(CHAIN_ID, wallet, "contributeAndFinalize", task, args)

    def finalize(self, task: TaskId) -> Intent:
        args = {"results": "0x", "callback": "0x"}
        return Intent.new(CHAIN_ID, self.owner.id.wallet, "finalize", task, args)

    def drive(self, lane: Lane, *intents: Intent, until: Callable[[IntentState], bool]) -> list[Intent]:
        """Run the lane at every block until all of them are so."""
        for _ in range(MANY_BLOCKS):
            lane.run()
            found = lane.intents([intent.key for intent in intents])
            if all(until(intent.state) for intent in found):
                return found
            self.chain.mine()
        raise AssertionError([(intent.state, intent.reason) for intent in found])


def ended(state: IntentState) -> bool:
    return state in (IntentState.FINAL, IntentState.DONE, IntentState.FAILED)


def mined(state: IntentState) -> bool:
    return state in (IntentState.MINED, IntentState.FINAL)
