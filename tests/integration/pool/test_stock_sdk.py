"""A stranger with the stock iExec SDK and the output of `sluice demo --json`, on a pool that runs."""

from __future__ import annotations

import json
from pathlib import Path

from bench.rig.bench_pool import BenchPool
from ops.demo import report
from tests.integration import sdk
from tests.integration.pool.conftest import ended, view
from tests.waiting import ample

#: Seconds for everything the SDK does: it looks at a task every 5 s.
WAIT_SECONDS = 90.0


def test_a_stranger_runs_a_task_and_fetches_its_result_knowing_only_the_demos_output(
    shared_pool: BenchPool, tmp_path: Path
) -> None:
    demo = tmp_path / "demo.json"
    demo.write_text(
        json.dumps(report.as_json([], shared_pool.pool.on_chain, _endpoints(shared_pool), seconds=0, block_time=1.0))
    )
    with sdk.start(demo, args="hello from a stranger", seconds=ample(WAIT_SECONDS)) as requester:
        try:
            printed, complaints = requester.communicate(timeout=ample(WAIT_SECONDS))
        finally:
            requester.kill()

    assert requester.returncode == 0, complaints
    told = json.loads(printed)
    assert told["status"] == "COMPLETED"
    assert told["messages"][-1] == "TASK_COMPLETED"
    assert told["files"]["result.txt"] == "args: hello from a stranger\ntask index: 0 of 1\n"
    # It came from this pool's scheduler, by one of its machines.
    task = ended(shared_pool, told["task_id"])
    machines = {wallet.key.wallet for wallet in shared_pool.pool.on_chain.workers}
    assert {item["walletAddress"] for item in task["replicates"]} <= machines
    assert {vote.worker for vote in view(shared_pool, told["task_id"]).revealed} <= machines


def _endpoints(shared_pool: BenchPool) -> dict[str, str]:
    """All that the demo tells of where things are, and this requester may use."""
    return {
        "rpc": shared_pool.chain.rpc_url,
        "hub": shared_pool.chain.addresses.hub,
        "workerpool": shared_pool.pool.on_chain.workerpool,
        "app": shared_pool.pool.on_chain.app,
        "app_image": shared_pool.pool.on_chain.app_image,
        "api": shared_pool.pool.api_url,
        "ipfs_gateway": shared_pool.servers.ipfs_gateway,
    }
