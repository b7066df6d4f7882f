"""The scheduler's Celery app, for the command line.

celery -A pipeline worker -c 2                        ingest, advance, assign; sweep; bulk
celery -A pipeline worker -Q lane.<wallet> -c 1       transactions of the workerpool owner
celery -A pipeline status | inspect active | report   what runs
celery -A pipeline flower                             Celery's web page

The environment is that of `sluice scheduler run`: the `SLUICE_…` variables.
"""

from __future__ import annotations

import sys
from typing import Any

from celery.signals import setup_logging, worker_process_init

from chain.keystore import load_key
from config import logging
from config.celery_apps import core_app
from config.settings import settings
from pipeline import tasks
from pipeline.broker.flower_machines import prepare_for_flower

app = core_app(settings(), load_key(settings()).wallet)
tasks.serve(app, settings())
# Tasks imported from `pipeline.tasks` belong to this app, e.g. `sweep_tasks.delay()`.
app.set_default()
if "flower" in sys.argv:
    prepare_for_flower(app)


@setup_logging.connect
@worker_process_init.connect
def _log(**_: Any) -> None:
    """Configure logging as in all processes; a listener of this signal keeps Celery from configuring its own."""
    logging.configure(settings(), process="scheduler")
