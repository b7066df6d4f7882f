"""The Celery app that Flower loads (`--app=pipeline.broker.flower_app`): vhost `core`, seen through its own user."""

from __future__ import annotations

from config import topology
from config.celery_apps import core_app
from config.logging import configure
from config.settings import settings
from pipeline.broker.flower_machines import prepare_for_flower

configure(settings(), process="flower")

app = core_app(settings())
prepare_for_flower(app)
#: What Flower's broker page lists.
app.conf.task_queues = [*topology.pipeline_queues(), topology.dead_queue()]
