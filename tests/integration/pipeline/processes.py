"""The scheduler's processes for tests: forked from a server that has imported everything once, to start fast.

`pipeline.app` and `beat.schedule` read the settings as they are imported, so only the child imports them.
"""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import beat.watch
import pipeline.tasks
from config import celery_apps

__all__ = ["kill", "preloaded", "start"]

preloaded = (beat.watch, pipeline.tasks, celery_apps)
_forge = get_context("forkserver")
_forge.set_forkserver_preload([__name__])


def start(name: str, environment: dict[str, str], log: Path, lane: str) -> BaseProcess:
    """Start one of watch, pipeline, lane, beat in a session of its own."""
    process = _forge.Process(target=_main, args=(name, environment, log, lane))
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """`kill -9` it with all of its children."""
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join(20)
    process.close()


def _main(name: str, environment: dict[str, str], log: Path, lane: str) -> None:
    os.setsid()
    os.environ.update(environment)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    match name:
        case "watch":
            beat.watch.main()
        case "beat":
            from beat.schedule import app as clock

            clock.start(["beat", "--loglevel=warning", "--pidfile="])
        case _:
            from pipeline.app import app

            queue = lane if name == "lane" else "pipeline"
            celery_apps.consume(app, queue, name=name, processes=1, log_level="info")
