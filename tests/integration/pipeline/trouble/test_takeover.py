"""`sluice scheduler adopt`: the database is lost for good, and the pool's open tasks are finished from the chain."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from beat.watch import LOOKBACK
from chain.lane.model.intent import LaneId
from chain.lane.model.nonce import NonceState
from chain.lane.store.mongo import MongoStore
from config.connections.mongodb import drop_database
from config.settings import settings
from ops import cli
from ops.poco.sender import TxRequest
from ops.poco.state import CHAIN_ID
from ops.pool.on_chain import XS
from pipeline.store.client import database
from protocol.poco.view import TaskStatus
from protocol.types import Wallet
from protocol.wire import Capabilities
from tests.integration.pipeline.conftest import NO_TAG, OWNER, Pool
from tests.integration.pipeline.simulated_worker import SimulatedWorker
from tests.waiting import until

PROCESSES = ("watch", "pipeline", "lane", "beat")


class Commands:
    """`sluice …` with the pool's settings."""

    def __init__(self, pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
        self.pool, self.capsys = pool, capsys

    def __call__(self, *words: str, code: int = 0) -> Any:
        """The JSON that the command prints, or of the error; it must end with `code`."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.pool.environment.items():
                patch.setenv(name, value)
            settings.cache_clear()
            self.capsys.readouterr()
            ended = cli.run([*words, "--json"])
            said = self.capsys.readouterr()
        settings.cache_clear()
        assert ended == code, said
        return json.loads(said.out or said.err.splitlines()[-1])


@pytest.fixture
def sluice(pool: Pool, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(pool, capsys)


def sign_in(pool: Pool, machine: SimulatedWorker) -> None:
    """What a machine does by itself when its token is refused."""
    offer = Capabilities(name="again", version="1", slots=2, cpus=1, memory_bytes=2**30, tag=NO_TAG)
    pool.store.workers.enrol(machine.key.wallet, offer, time.time())


def votes(pool: Pool, deal: Any) -> int:
    return sum(len(view.contributions) for view in pool.views(deal))


def lose_the_database(pool: Pool) -> None:
    for name in PROCESSES:
        pool.kill(name)
    drop_database(pool.settings.mongodb_uri.get_secret_value(), pool.settings.mongodb_database)


def test_a_pool_without_its_database_finishes_tasks_at_every_step_and_late_votes_of_unknown_workers_count(
    pool: Pool, sluice: Commands
) -> None:
    # Agreed, one of two revealed, the result brought by nobody.
    first, second = pool.enrol(0, slots=2, deaf={"worker.upload"}), pool.enrol(1, slots=2, deaf={"worker.reveal"})
    revealing = pool.buy(trust=3, category=XS)
    until("one winner revealed", lambda: len(pool.views(revealing)[0].revealed) == 1)
    # Two of three votes, and a machine that has computed and does not vote yet.
    silent = pool.enrol(2, slots=2, deaf={"worker.contribute"})
    voting = pool.buy(trust=5, category=XS)
    until("two have voted", lambda: votes(pool, voting) == 2)
    until("a third has computed", lambda: silent.jobs)
    owner = pool.chain.sender(OWNER)
    assert sluice("scheduler", "adopt", "--yes", code=2)["error"].startswith(
        f"The database {pool.settings.mongodb_database} is not empty"
    )

    lose_the_database(pool)
    fresh = pool.buy(trust=1, volume=2, category=XS)
    # A transaction that the lost scheduler sent last is in no block yet.
    pool.chain.rpc.call("evm_setIntervalMining", 0)
    owner.send([TxRequest(owner.wallet, "0x", 21_000)])
    refused = sluice("scheduler", "adopt", "--yes", "--wait", "0", code=2)
    assert refused["error"].startswith(f"1 transactions of {owner.wallet} are in no block yet")
    # Whole seconds only.
    pool.chain.rpc.call("evm_setIntervalMining", 1)
    assert not database(pool.settings).list_collection_names(), "refused: nothing is written"

    # A site that was made for this has the chain's head of that day as its first block, above the open deals.
    start_block = pool.chain.hub.head()
    pool.settings = pool.settings.model_copy(update={"start_block": start_block})
    pool.settings.model_fields_set.add("start_block")
    assert sluice("scheduler", "adopt", "--dry-run")["first_block"] >= start_block - 2
    looked = sluice("scheduler", "adopt", "--dry-run", "--from", "0")
    assert looked["tasks"] == {"UNSET": 2, "ACTIVE": 1, "REVEALING": 1}
    assert (looked["deals"], looked["votes"], looked["to_reveal"]) == (3, 4, 1)
    assert looked["voters"] == sorted([first.key.wallet, second.key.wallet])
    assert looked["first_block"] == revealing.block_number
    assert looked["locked_nrlc"] == looked["explained_nrlc"] == 4 * 30
    assert not database(pool.settings).list_collection_names(), "a dry run writes nothing"
    adopted = sluice("scheduler", "adopt", "--yes", "--from", "0")
    assert (adopted["done"], adopted["pending"]) == (True, 0)
    before = max(0, min(revealing.block_number - 1, adopted["head"] - LOOKBACK))
    assert pool.store.chain.followed_from(start_block) == before + 1

    for machine in (first, second):
        machine.deaf.clear()
        sign_in(pool, machine)
    for name in PROCESSES:
        pool.start(name)
    pool.await_status(revealing, TaskStatus.COMPLETED)
    pool.await_status(fresh, TaskStatus.COMPLETED)
    # The third machine has no row in this database, and an authorization of the lost one.
    silent.deaf.clear()
    silent._contribute(silent.jobs[voting.tasks[0]])
    pool.await_status(voting, TaskStatus.COMPLETED)
    (record,) = pool.await_closed(voting)
    assert {item.wallet for item in record.replicates} == {machine.key.wallet for machine in pool.machines}
    assert pool.locked() == [0, 0, 0, 0, 0]

    lane = LaneId(CHAIN_ID, owner.wallet)
    assert MongoStore(database(pool.settings)).halted(lane) is None
    nonces = [record.nonce for record in MongoStore(database(pool.settings)).newest(lane, list(NonceState), 100, None)]
    assert min(nonces) == adopted["nonce"], "the lane went on where the chain stood"
    stranger = Wallet(silent.key.wallet)
    audited = sluice("audit", "--wait", "0", code=1)
    assert [(row["kind"], row["subject"]) for row in audited["differences"]] == [("user_without_machine", stranger)]
