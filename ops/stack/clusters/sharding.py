"""MongoDB sharded on this machine: a config server and two shards, each a replica set of one, and a router.

The router is a `mongos` on PATH, else our own (`router`): programs reach the database through it and need not know.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ops.stack import ports
from ops.stack.clusters.members import Member
from ops.stack.process import Process, Program
from ops.stack.servers import mongodb


def start(servers: Sequence[Member], port: int) -> list[Process]:
    """Start all of them, or find them running; returns the router first, once it routes to both shards.

    Raises PortTaken, NotReady, MissingTool.
    """
    *behind, router = servers
    with ThreadPoolExecutor(len(behind)) as threads:
        processes = list(threads.map(lambda member: mongodb.start_alone(member, port), behind))
    config, *shards = behind
    with mongodb.direct(config, port) as client:
        for shard in shards:
            # One that was added before is found again.
            added = {"_configsvrAddShard": f"{shard.folder.name}/{shard.host}:{port}", "name": shard.folder.name}
            client.admin.command({**added, "writeConcern": {"w": "majority"}})
        # With as much of every collection on each shard from its beginning, nothing has to move.
        client.admin.command({"_configsvrBalancerStop": 1, "maxTimeMS": _STOP_MS})
    return [_start_router(router, config, shards, port), *processes]


def _start_router(router: Member, config: Member, shards: Sequence[Member], port: int) -> Process:
    """A running router, started if it does not run. Raises PortTaken, NotReady."""
    program = Program("MongoDB", _command(router, config, shards, port), router.folder)

    def prepare() -> None:
        """Raise PortTaken if another program has the router's port."""
        ports.require_free(port, part="MongoDB", setting="SLUICE_STACK_MONGODB_PORT", host=router.host)

    return program.ensure(lambda: mongodb.answers(router, port), seconds=mongodb.START_SECONDS, before_start=prepare)


def _command(router: Member, config: Member, shards: Sequence[Member], port: int) -> list[str]:
    """The command line of the router."""
    installed = shutil.which("mongos")
    if installed:
        behind = f"{config.folder.name}/{config.host}:{port}"
        return [installed, "--configdb", behind, "--port", str(port), "--bind_ip", router.host, "--nounixsocket"]
    named = [f"{shard.folder.name}={shard.host}:{port}" for shard in shards]
    module = "ops.stack.clusters.router"
    return [sys.executable, "-m", module, f"{router.host}:{port}", f"{config.host}:{port}", *named]


#: Milliseconds for the balancer to end what it does.
_STOP_MS = 60_000
