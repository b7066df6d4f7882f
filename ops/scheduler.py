"""The scheduler of one pool as one command: all its processes under one supervisor.

api        HTTP API for workers and requesters; api-2,    watch   follows the blocks
           api-3, … beside it: SLUICE_API_PROCESSES
pipeline   Celery: ingest, advance, assign, sweep         beat    Celery beat: the clock
lane       Celery: the workerpool owner's transactions    flower  Celery's web page, for the operator
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from beat import celery as clock
from beat import watch
from chain.rpc.library import preload_web3
from config import celery_apps, topology
from config.processes.supervisor import Supervisor
from config.settings import Settings
from pipeline.api import serve
from pipeline.broker import flower
from pipeline.celery import app
from protocol.types import Wallet


def run(settings: Settings, wallet: Wallet, wanted: Sequence[str]) -> None:
    """Run these of the scheduler's processes until SIGTERM; called once `ops.preflight.check` has passed."""
    mains = _mains(settings, wallet)
    celery_apps.warm_up(app)
    preload_web3()
    children = {name: mains[name] for name in wanted}
    if "api" in children:
        others = range(2, settings.api_processes + 1)
        children |= {f"api-{number}": partial(serve.run_another, settings) for number in others}
    Supervisor(children, pid_dir=settings.home / "run").run()


def _mains(settings: Settings, wallet: Wallet) -> Mapping[str, Callable[[], None]]:
    """The main function of each of the scheduler's processes, by its name."""
    lane = topology.lane_queue_name(wallet)
    consume = partial(celery_apps.consume, app, host=settings.host_name, log_level=settings.log_level)
    return {
        "api": partial(serve.run, settings),
        "watch": watch.main,
        "pipeline": partial(consume, topology.PIPELINE_QUEUES, name="pipeline", processes=settings.pipeline_processes),
        "lane": partial(consume, (lane,), name="lane", processes=1),
        "beat": partial(clock.run, settings),
        "flower": partial(flower.run, settings),
    }
