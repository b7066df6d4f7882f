"""`sluice chain …` as an operator types it, on a real chain that two pools share, with a real database."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chain.contracts import calls
from chain.watch.watcher import Watcher
from config.settings import read_settings, settings
from ops import cli
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID
from ops.stack import ports
from ops.stack.stack import Stack
from pipeline.flow.ingest import Ours, RegistryCache, ingest
from pipeline.store import client
from pipeline.store.client import Store
from protocol.types import Contract, Hash32
from tests.integration.conftest import Chain, given

OWNER, REQUESTER = 1, 2
CHECKSUM = Hash32("0x" + "11" * 32)
#: Unix seconds, far ahead.
NEVER = 1e12


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@dataclass
class Scene:
    """Our pool and another one, a deal and two initialized tasks for each, followed and ingested."""

    chain: Chain
    store: Store
    rows: Any
    pool: Contract
    ours: Matched
    foreign: Matched
    env: dict[str, str]
    capsys: pytest.CaptureFixture[str]

    def sluice(self, *words: str, code: int = 0, as_json: bool = True, **env: str) -> Any:
        """The JSON that `sluice chain …` prints, or what it says on standard error; it must end with `code`."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (self.env | env).items():
                patch.setenv(name, value)
            settings.cache_clear()
            self.capsys.readouterr()
            assert cli.run(["chain", *words, *["--json"] * as_json]) == code
        settings.cache_clear()
        said = self.capsys.readouterr()
        return json.loads(said.out) if said.out and as_json else said.out or said.err

    def forget(self) -> str:
        """Lose one log, lose the deal, and invent a log; the id of the invented one."""
        self.rows["logs"].delete_one({"kind": "TaskInitialize", "event.task_id": self.ours.tasks[0]})
        self.rows["deals"].delete_one({"_id": self.ours.deal_id})
        log = self.rows["logs"].find_one({"kind": "TaskInitialize", "event.task_id": self.ours.tasks[1]})
        invented = {**log, "_id": f"{log['block_hash']}:999", "log_index": 999, "kind": "TaskClaimed"}
        invented["event"] = {"task_id": self.ours.tasks[1]}
        self.rows["logs"].insert_one(invented)
        # The invented end was believed.
        self.rows["tasks"].update_many({}, {"$set": {"open": False, "next_visit": NEVER}})
        return str(invented["_id"])


@pytest.fixture
def scene(chain: Chain, stack: Stack, database: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    owner, requester, market = chain.sender(OWNER), chain.sender(REQUESTER), chain.market
    hello, mine = contracts.NewApp("hello", "hello:1", CHECKSUM), contracts.NewWorkerpool("ours")
    app, pool, other = contracts.create(owner, chain.at, [hello, mine, contracts.NewWorkerpool("theirs")])
    sold = orders.offer_app(market, owner.key, app)
    offers = [Offer(sold, orders.offer_work(market, owner.key, each, category=0)) for each in (pool, other)]
    requests = [orders.request(market, requester.key, offer, volume=2) for offer in offers]
    ours, foreign = match(requester, market, list(zip(offers, requests, strict=True)))
    data = [calls.initialize_array([(deal.deal_id, index) for index in range(2)]) for deal in (ours, foreign)]
    owner.run([TxRequest(chain.at.hub, each, calls.gas_limit("initializeArray", each)) for each in data])

    env = {
        "SLUICE_RPC_URL": chain.node.rpc_url,
        "SLUICE_CHAIN_ID": str(CHAIN_ID),
        "SLUICE_HUB": chain.at.hub,
        "SLUICE_WORKERPOOL": pool,
        "SLUICE_MONGODB_URI": stack.settings["SLUICE_MONGODB_URI"],
        "SLUICE_MONGODB_DATABASE": database,
    }
    own = read_settings(**given(env))
    store = Store.open(own)
    store.ensure_indexes()
    list(Watcher(chain.rpc, chain.hub, pool, store.chain).catch_up(chain.hub.head()))
    ingest(store, RegistryCache(chain.hub), Ours(pool, owner.wallet), store.deals.deals_to_ingest(10), time.time())
    yield Scene(chain, store, client.database(own), pool, ours, foreign, env, capsys)


def test_what_was_lost_or_invented_is_found_exactly_and_repaired(scene: Scene) -> None:
    assert scene.sluice("audit")["clean"]
    invented = scene.forget()

    found = scene.sluice("audit", code=1)
    assert [(row["kind"], row["task_id"]) for row in found["missing"]] == [("TaskInitialize", scene.ours.tasks[0])]
    assert [f"{row['block_hash']}:{row['log_index']}" for row in found["extra"]] == [invented]
    assert [row["deal_id"] for row in found["missing_deals"]] == [scene.ours.deal_id]
    assert found["extra_deals"] == []

    before = {name: list(scene.rows[name].find()) for name in ("logs", "deals", "tasks", "blocks", "cursors")}
    dry = scene.sluice("replay", "--from", "0", "--dry-run")
    assert not dry["done"]
    assert {name: list(scene.rows[name].find()) for name in before} == before

    words = found["mend"].split()[2:]
    repaired = scene.sluice(*words)
    assert {key: repaired[key] for key in ("missing", "extra", "missing_deals")} == {
        key: found[key] for key in ("missing", "extra", "missing_deals")
    }
    assert scene.sluice("audit")["clean"]
    # What the sweep asks for: no message was needed.
    assert scene.store.deals.deals_to_ingest(10) == [scene.ours.deal_id]
    assert {task.task_id for task in scene.store.tasks.tasks_due(1.0, 10)} == set(scene.ours.tasks)


def test_nothing_of_another_pool_is_stored_and_an_invented_deal_is_taken_away(scene: Scene) -> None:
    assert scene.rows["logs"].count_documents({"event.task_id": {"$in": list(scene.foreign.tasks)}}) == 0
    assert scene.rows["logs"].count_documents({"event.deal_id": scene.foreign.deal_id}) == 0
    block = scene.store.chain.cursor()
    assert block is not None
    scene.store.deals.noticed([(scene.foreign.deal_id, block.number, block.hash)])

    found = scene.sluice("audit", code=1)
    assert [row["deal_id"] for row in found["extra_deals"]] == [scene.foreign.deal_id]
    scene.sluice("replay", "--from", "0")
    assert scene.store.deals.deals_to_ingest(10) == []
    assert scene.sluice("audit")["clean"]


def test_without_json_the_command_says_in_words_what_is_odd_and_how_to_repair_it(scene: Scene) -> None:
    assert "all is stored as the chain says" in scene.sluice("audit", as_json=False)
    scene.forget()
    said = scene.sluice("audit", code=1, as_json=False)
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["missing", "extra", "missing"]
    told = re.search(r"To repair it: sluice chain (replay --from \d+ --to \d+)$", said, re.MULTILINE)
    assert told is not None
    dry = scene.sluice(*told[1].split(), "--dry-run")
    assert (len(dry["missing"]), len(dry["extra"]), len(dry["missing_deals"])) == (1, 1, 1)
    assert "Nothing was changed." in scene.sluice("replay", "--from", "0", "--dry-run", as_json=False)
    assert "Repaired." in scene.sluice("replay", "--from", "0", as_json=False)
    assert "1 deal (1 to be ingested), 4 rows of events" in scene.sluice("status", as_json=False)


def test_status_tells_how_far_the_watcher_is_and_a_reorg_since(scene: Scene) -> None:
    cursor = scene.store.chain.cursor()
    assert cursor is not None
    told = scene.sluice("status")
    (node,) = told["nodes"]
    assert (told["cursor"]["number"], told["cursor"]["hash"]) == (cursor.number, cursor.hash)
    assert (node["has_cursor"], node["lag"] >= 0, node["finalized"] <= node["head"]) == (True, True, True)
    assert (told["deals"], told["deals_waiting"], told["logs"], told["reorgs"]) == (1, 0, 3, [])

    depth = scene.chain.hub.head() - cursor.number + 2
    scene.chain.rpc.call("anvil_reorg", depth, [])
    assert "another block in the place of the last one followed" in scene.sluice("status", code=1)["odd"][0]
    said = scene.sluice("audit", code=1)
    assert "is not the one that was followed" in said

    list(Watcher(scene.chain.rpc, scene.chain.hub, scene.pool, scene.store.chain).catch_up(scene.chain.hub.head()))
    (reorg,) = scene.sluice("status")["reorgs"]
    assert reorg["depth"] == 2


def test_mistakes_and_a_node_that_is_away_are_one_sentence(scene: Scene) -> None:
    cursor = scene.store.chain.cursor()
    assert cursor is not None
    for words, code, sentence in (
        (("audit", "--from", "7", "--to", "3"), 2, "The first block, 7, is above the last, 3."),
        (("replay", "--from", "0", "--to", "999999"), 2, f"the last one is block {cursor.number}."),
    ):
        said = scene.sluice(*words, code=code)
        assert sentence in said
        assert said.count("\n") == 1
    away = f"http://127.0.0.1:{ports.free_port()}"
    said = scene.sluice("audit", code=1, SLUICE_RPC_URL=away)
    assert json.loads(said)["error"].startswith(f"The Ethereum node at {away} does not answer")
    assert said.count("\n") == 1
    assert away in scene.sluice("status", code=1, SLUICE_RPC_URL=away)["odd"][0]


def test_a_database_in_which_nothing_was_followed_is_said_so(scene: Scene) -> None:
    said = scene.sluice("audit", code=2, SLUICE_MONGODB_DATABASE=f"{scene.env['SLUICE_MONGODB_DATABASE']}_new")
    assert "No block was followed yet" in said
