"""The scheduler's Celery app, for the command line.

celery -A pipeline worker -c 2                        ingest, advance, assign; sweep; bulk
celery -A pipeline worker -Q lane.<wallet> -c 1       transactions of the workerpool owner
celery -A pipeline status | inspect active | report   what runs
celery -A pipeline flower                             Celery's web page

The environment is that of `sluice scheduler run`: the `SLUICE_…` variables.
"""

from __future__ import annotations

import sys
from logging import WARNING, getLogger
from typing import Any

from celery.signals import setup_logging, worker_process_init

from chain.keystore import load_key
from config import logging
from config.celery_apps import core_app, prepare_for_flower
from config.settings import settings
from pipeline import tasks

#: Celery's loggers that say "received" and "succeeded" for every task: Flower shows that, and it costs time.
TWO_LINES_A_TASK = ("celery.worker.strategy", "celery.app.trace")

app = core_app(settings(), load_key(settings()).wallet)
tasks.serve(app, settings())
# Tasks imported from `pipeline.tasks` belong to this app, e.g. `sweep_tasks.delay()`.
app.set_default()
if "flower" in sys.argv:
    prepare_for_flower(app)


@setup_logging.connect
@worker_process_init.connect
def _log(**_: Any) -> None:
    """One line format for all processes; a listener here keeps Celery from installing its own."""
    logging.configure(settings(), process="scheduler")
    for name in TWO_LINES_A_TASK:
        getLogger(name).setLevel(WARNING)
