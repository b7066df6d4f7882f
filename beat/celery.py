"""Celery beat, which publishes the sweep every few seconds. Two of them do no harm, and a late one costs latency only.

It keeps no schedule file: an entry that is due every few seconds need not survive a restart, and two beats with a
common file would overwrite it.

celery -A beat beat
"""

from __future__ import annotations

import time

from celery import Celery

from config import topology
from config.celery_apps import core_app
from config.settings import Settings, settings

#: Seconds between two runs of `pipeline.tidy` (results to pin, records not needed any more): two queries by index.
TIDY_SECONDS = 60.0
#: Seconds between two checks whether an audit is due, and so between its two readings: one query if it is not.
AUDIT_SECONDS = 60.0


def beat_app(settings: Settings) -> Celery:
    """A Celery app whose beat publishes `pipeline.sweep` and `pipeline.orders` every `sweep_seconds`, and rarely
    `pipeline.tidy` and `pipeline.audit`.
    """
    app = core_app(settings)
    app.conf.update(
        beat_schedule={
            "sweep": {
                "task": topology.SWEEP,
                "schedule": settings.sweep_seconds,
                "options": {
                    # A sweep that waited until the next one is due would only do the same twice.
                    "expires": max(settings.sweep_seconds, 1.0),
                },
            },
            "orders": {
                "task": topology.ORDERS,
                "schedule": settings.sweep_seconds,
                "options": {"expires": max(settings.sweep_seconds, 1.0)},
            },
            "tidy": {
                "task": topology.TIDY,
                "schedule": TIDY_SECONDS,
                "options": {"expires": TIDY_SECONDS},
            },
            "audit": {
                "task": topology.AUDIT,
                "schedule": AUDIT_SECONDS,
                # The first audit after this start is due whenever the last one was.
                "args": (time.time(),),
                "options": {"expires": AUDIT_SECONDS},
            },
        },
        beat_scheduler="celery.beat:Scheduler",
        # The sweep needs no longer sleep than its own period, and a restart then sweeps soon.
        beat_max_loop_interval=settings.sweep_seconds,
    )
    return app


app = beat_app(settings())


def run(settings: Settings) -> None:
    """Main of the scheduler's process `beat`, until SIGTERM. (Celery's own command line would print a banner.)"""
    app.Beat(quiet=True, loglevel=settings.log_level.upper()).run()
