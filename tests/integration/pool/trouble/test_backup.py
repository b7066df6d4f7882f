"""A backup taken while tasks run; then all that the scheduler has is lost, and restored under a chain that went on."""

from __future__ import annotations

import shutil
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.faults import nonce_gaps, stake_locked
from bench.rig.bench_pool import BenchPool
from chain.rpc.answers import decode_replies, values
from config.connections.mongodb import client
from ops.market.match import Matched
from ops.pool import site
from protocol.poco.view import TaskStatus
from tests.integration.pool.environment import scheduler_command
from tests.waiting import ample, wait_until

#: Each container outlasts two blocks, so that tasks are at every step when the backup is taken and when all is lost.
WORK = "sleep 0.7"
BEFORE, AFTER, MISSED = 8, 4, 2


def completed(bench_pool: BenchPool, *deals: Matched) -> int:
    tasks = [task for deal in deals for task in deal.tasks]
    return sum(view.status is TaskStatus.COMPLETED for view in bench_pool.hub.tasks(tasks))


def lose_everything(bench_pool: BenchPool) -> None:
    """Scheduler killed; its database, RabbitMQ's virtual hosts and users, and its folder are gone."""
    pool = bench_pool.pool
    pool.running["scheduler"].kill()
    site.clear(bench_pool.servers, bench_pool.names)
    for name in ("token.secret", "admin.token"):
        (pool.home / "scheduler" / name).unlink()
    shutil.rmtree(pool.home / "scheduler" / "run")


def sent(bench_pool: BenchPool) -> Mapping[int, str]:
    """The scheduler's transactions in blocks: hash by nonce, each nonce once."""
    wallet, rpc = bench_pool.pool.on_chain.scheduler.key.wallet, bench_pool.rpc
    head = int(rpc.call("eth_blockNumber"), 16)
    blocks = rpc.batch([("eth_getBlockByNumber", (hex(number), True)) for number in range(head + 1)])
    bodies = values(decode_replies(blocks, lambda block: block["transactions"]), rpc.name)
    mine = [tx for body in bodies for tx in body if tx["from"].lower() == wallet]
    assert max(Counter(int(tx["nonce"], 16) for tx in mine).values()) == 1
    return {int(tx["nonce"], 16): tx["hash"] for tx in mine}


def test_a_pool_restored_from_a_backup_under_load_ends_every_task_and_reuses_no_nonce(
    bench_pool: BenchPool, tmp_path: Path
) -> None:
    pool, backup = bench_pool.pool, tmp_path / "pool.backup"
    first = bench_pool.buy(trust=3, volume=BEFORE, args=WORK)
    wait_until(lambda: completed(bench_pool, first) >= 2, 60, what="tasks at every step")
    taken = scheduler_command(bench_pool, "backup", str(backup), "--keys", "--json")
    assert taken.code == 0, taken.err
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [backup.name]

    # The chain goes on beyond the backup: another deal, more steps and more transactions of the scheduler.
    nonces = len(sent(bench_pool))
    second = bench_pool.buy(trust=1, volume=AFTER, args=WORK)
    wait_until(lambda: completed(bench_pool, second) >= 1, 60, what="a task that the backup does not know")
    assert len(sent(bench_pool)) > nonces
    lose_everything(bench_pool)
    # Nobody is there for it until the scheduler is back, however far the others are by now.
    missed = bench_pool.buy(trust=1, volume=MISSED, args=WORK)

    looked = scheduler_command(bench_pool, "restore", str(backup), "--dry-run", "--json")
    assert (looked.code, looked.json["dry_run"], looked.json["block"]) == (0, True, taken.json["block"]), looked.err
    database = client(bench_pool.servers.mongodb_uri)[bench_pool.names.database]
    assert database.list_collection_names() == []
    restored = scheduler_command(bench_pool, "restore", str(backup), "--keys", "--json")
    assert restored.code == 0, restored.err
    assert (restored.json["documents"], restored.json["pending"]) == (taken.json["documents"], 0)
    assert not [name for name in database.list_collection_names() if name.startswith("restore.")]

    assert completed(bench_pool, missed) == 0
    pool.start_scheduler()
    bench_pool.wait([first, second, missed])
    assert completed(bench_pool, first, second, missed) == BEFORE + AFTER + MISSED
    assert bench_pool.compare(first, ample(30)) == (0, 0)
    assert bench_pool.compare(second, ample(30)) == (0, 0)
    assert bench_pool.compare(missed, ample(30)) == (0, 0)
    assert stake_locked(bench_pool) == 0
    wait_until(lambda: nonce_gaps(bench_pool) == 0, 10, what="all nonces to be mined")
    on_chain = sent(bench_pool)
    assert sorted(on_chain) == list(range(len(on_chain)))
    mined = list(database["nonces"].find({"mined": {"$ne": None}}))
    assert mined
    assert {row["nonce"]: row["mined"]["hash"] for row in mined}.items() <= on_chain.items()
    audited = scheduler_command(bench_pool, "chain", "audit")
    assert audited.code == 0, audited
    lane = scheduler_command(bench_pool, "tx", "audit")
    assert lane.code == 0, lane
    # What the lost scheduler sent after the backup is in no journal, but in the chain's blocks.
    wait_until(
        lambda: scheduler_command(bench_pool, "ledger").code == 0, 30, what="a ledger that is equal to the chain"
    )
