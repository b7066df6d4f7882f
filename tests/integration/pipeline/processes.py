"""The scheduler's processes for tests."""

from __future__ import annotations

import os
from multiprocessing.process import BaseProcess
from pathlib import Path

import beat.watch
from config import celery_apps, topology
from tests.integration import forged


def start(name: str, environment: dict[str, str], log: Path, lane: str) -> BaseProcess:
    """Start one of watch, pipeline, lane, beat."""
    return forged.start(_main, name, lane, env=_inherited() | environment, out=log)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("SLUICE_")}


def _main(name: str, lane: str) -> None:
    match name:
        case "watch":
            beat.watch.main()
        case "beat":
            from beat.celery import app as clock

            clock.start(["beat", "--loglevel=warning", "--pidfile="])
        case _:
            from pipeline.celery import app

            queues = (lane,) if name == "lane" else topology.PIPELINE_QUEUES
            celery_apps.consume(
                app, queues, name=name, processes=1, host=os.environ.get("SLUICE_HOST_NAME"), log_level="info"
            )
