"""The Celery app that Flower loads (`--app=pipeline.broker.flower_app`): vhost `core`, seen through its own user."""

from __future__ import annotations

import logging

from config import topology
from config.celery_apps import core_app
from config.logging import configure
from config.settings import settings

configure(settings(), process="flower")
#: It warns of every worker that does not answer to remote control, which none of ours has.
logging.getLogger("flower.inspector").setLevel(logging.CRITICAL)

app = core_app(settings())
#: What Flower's broker page lists.
app.conf.task_queues = [*topology.pipeline_queues(), topology.dead_queue()]
#: Flower asks machines that never answer (we have no remote control) on many threads at a time: with a shared pool of
#: confirmed connections they wait for each other for ever, and so does a SIGTERM.
app.conf.broker_pool_limit = 0
app.conf.broker_transport_options = {}
