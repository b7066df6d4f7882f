"""The scheduler of one pool as one command: all its processes under one supervisor.

api        HTTP API for workers and requesters            watch   follows the blocks
pipeline   Celery: ingest, advance, assign, sweep         beat    Celery beat: the clock
lane       Celery: the workerpool owner's transactions    flower  Celery's web page, for the operator
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from beat import schedule, watch
from chain.hub import Hub
from chain.keystore import load_key
from chain.rpc import Rpc
from config import celery_apps, topology
from config.settings import Settings
from config.supervisor import Supervisor
from ops.stack import ports
from pipeline import flower
from pipeline.api import serve
from pipeline.app import app
from protocol.errors import BadSetting
from protocol.types import Contract, Wallet

#: Names of the processes, in the order in which they start.
PROCESSES = ("api", "watch", "pipeline", "lane", "beat", "flower")


def run(settings: Settings, *, only: frozenset[str] = frozenset()) -> None:
    """Run the scheduler until SIGTERM. `only`: names of PROCESSES wanted on this machine; empty means all.

    Raises BadSetting, BadKeystore, WrongChain, RpcUnavailable, PortTaken before anything is started.
    """
    unknown = only - set(PROCESSES)
    if unknown:
        raise BadSetting(name="--only", why=f"there is no process {', '.join(unknown)}", fix=f"Choose of {PROCESSES}.")
    wallet = load_key(settings).wallet
    _check_chain(settings)
    mains = _mains(settings, wallet)
    wanted = {name: mains[name] for name in PROCESSES if not only or name in only}
    if "api" in wanted:
        ports.require_free(settings.api_port, part="the API", setting="SLUICE_API_PORT")
    if "flower" in wanted:
        ports.require_free(settings.flower_port, part="Flower", setting="SLUICE_FLOWER_PORT")
    Supervisor(wanted, pid_dir=settings.home / "run").run()


def _check_chain(settings: Settings) -> None:
    if settings.hub is None or settings.workerpool is None:
        missing = "SLUICE_HUB" if settings.hub is None else "SLUICE_WORKERPOOL"
        raise BadSetting(name=missing, why="it is not set", fix="Give the contract's address.")
    with Rpc(settings.rpc_url, settings.rpc_timeout) as rpc:
        Hub(rpc, Contract(settings.hub.lower())).check_chain(settings)


def _mains(settings: Settings, wallet: Wallet) -> Mapping[str, Callable[[], None]]:
    lane = topology.lane_queue_name(wallet)
    consume = partial(celery_apps.consume, app, log_level=settings.log_level)
    return {
        "api": partial(serve.run, settings),
        "watch": watch.main,
        "pipeline": partial(consume, topology.PIPELINE_QUEUE, name="pipeline", processes=settings.pipeline_processes),
        "lane": partial(consume, lane, name="lane", processes=1),
        "beat": partial(schedule.app.start, ["beat", f"--loglevel={settings.log_level}"]),
        "flower": partial(flower.run, settings),
    }
