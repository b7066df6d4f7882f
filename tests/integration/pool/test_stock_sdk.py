"""A stranger with the stock iExec SDK and the output of `sluice demo --json`, on a pool that runs."""

from __future__ import annotations

import json
from pathlib import Path

from bench.arena import Arena
from ops.demo import report
from tests.integration import sdk
from tests.integration.pool.conftest import ended, view
from tests.waiting import ample

#: Seconds for everything the SDK does: it looks at a task every 5 s.
PATIENCE = 90.0


def test_a_stranger_runs_a_task_and_fetches_its_result_knowing_only_the_demos_output(
    hall: Arena, tmp_path: Path
) -> None:
    demo = tmp_path / "demo.json"
    demo.write_text(json.dumps(report.as_json([], hall.pool.ground, _endpoints(hall), seconds=0, block_time=1.0)))
    with sdk.start(demo, args="hello from a stranger", seconds=ample(PATIENCE)) as requester:
        try:
            printed, complaints = requester.communicate(timeout=ample(PATIENCE))
        finally:
            requester.kill()

    assert requester.returncode == 0, complaints
    told = json.loads(printed)
    assert told["status"] == "COMPLETED"
    assert told["messages"][-1] == "TASK_COMPLETED"
    assert told["files"]["result.txt"] == "args: hello from a stranger\ntask index: 0 of 1\n"
    # It came from this pool's scheduler, by one of its machines.
    task = ended(hall, told["task_id"])
    machines = {wallet.key.wallet for wallet in hall.pool.ground.workers}
    assert {item["walletAddress"] for item in task["replicates"]} <= machines
    assert {vote.worker for vote in view(hall, told["task_id"]).revealed} <= machines


def _endpoints(hall: Arena) -> dict[str, str]:
    """All that the demo tells of where things are, and this requester may use."""
    return {
        "rpc": hall.chain.rpc_url,
        "hub": hall.chain.addresses.hub,
        "workerpool": hall.pool.ground.workerpool,
        "app": hall.pool.ground.app,
        "app_image": hall.pool.ground.app_image,
        "api": hall.pool.api_url,
        "ipfs_gateway": hall.servers.ipfs_gateway,
    }
