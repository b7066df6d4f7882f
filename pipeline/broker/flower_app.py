"""The Celery app that Flower loads (`--app=pipeline.broker.flower_app`): vhost `core`, seen through its own user."""

from __future__ import annotations

from config import topology
from config.celery_apps import core_app, prepare_for_flower
from config.logging import configure
from config.settings import settings

configure(settings(), process="flower")

app = core_app(settings())
prepare_for_flower(app)
app.control_cls = "pipeline.broker.flower_machines:MachineControl"
#: What Flower's broker page lists.
app.conf.task_queues = [*topology.pipeline_queues(), topology.dead_queue()]
