"""Starts Flower, the web page that shows every worker machine and every step, with a user that can only read.

It runs on vhost `core`, by default listens on this machine only, is read-only, and signs in to RabbitMQ as a user that
can receive events but not publish a task. Where others may reach it, it asks for user and password
(`pipeline.broker.monitor`). Passwords are passed in the environment: any user sees an argument list.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import structlog

from config import metrics_folder
from config.connections import broker_nodes
from config.password_files import FILES
from config.settings import Settings
from config.values.variables import PREFIX
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.monitor import admit_monitor, flower_sign_in
from pipeline.broker.users import flower_user

log = structlog.get_logger(__name__)

#: Machines and tasks kept in memory: 10,000 of each costs about 100 MB.
MAX_WORKERS, MAX_TASKS = 10_000, 10_000
#: Columns of Flower's page of tasks: `args` is the iExec task's id, `kwargs` the machine's name; and why it failed.
TASKS_COLUMNS = "name,args,kwargs,state,runtime,worker,received,exception,uuid"


#: Variables of ours that Flower is not given: the folder in which our processes count together, since Flower's own
#: series have a page of their own there, and the file with the password of another user than its own.
NOT_FLOWERS = frozenset((metrics_folder.VARIABLE, f"{PREFIX}{FILES['amqp_url'].upper()}"))


@dataclass(frozen=True, slots=True)
class FlowerLaunch:
    """What to execute, and what its environment needs beside ours."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(repr=False)


def flower_launch(settings: Settings, password: str, api_url: str, sign_in: str | None = None) -> FlowerLaunch:
    """How to start Flower with the broker user of `BrokerAdmin.admit_flower` and its `password`. `api_url`: the node
    whose management API it asks, since Flower takes one only. `sign_in`: user and password that it asks for.
    """
    argv = (
        sys.executable,
        "-m",
        "celery",
        "--app=pipeline.broker.flower_app",
        # Celery's: no banner. The log is ours (`pipeline.broker.flower_app`), so Tornado must set up none.
        "--quiet",
        "flower",
        "--logging=none",
        f"--address={settings.flower_host}",
        f"--port={settings.flower_port}",
        "--read_only=True",
        "--persistent=False",
        f"--tasks_columns={TASKS_COLUMNS}",
        f"--max_workers={MAX_WORKERS}",
        f"--max_tasks={MAX_TASKS}",
    )
    user = flower_user(settings)
    env = {
        "SLUICE_AMQP_URL": broker_nodes.SEPARATOR.join(
            _signed_in(url, user, password) for url in broker_nodes.amqp_urls(settings)
        ),
        "FLOWER_BROKER_API": f"{_signed_in(api_url, user, password)}/api/",
        # A reader can change nothing. With a sign-in its API asks for it too; else who may read is decided by where it
        # listens.
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    if sign_in is not None:
        env["FLOWER_BASIC_AUTH"] = sign_in
    return FlowerLaunch(argv, env)


def run(settings: Settings) -> None:
    """Main of the process `flower`: make its broker user, then become Flower (same pid, so signals reach it)."""
    with BrokerAdmin.from_settings(settings) as admin:
        admin.prepare()
        admit_monitor(admin, settings)
        password = admin.admit_flower()
    launch = flower_launch(settings, password, admin.api_url, flower_sign_in(settings))
    log.info("Flower starts.", action="flower_start", port=settings.flower_port)
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_FLOWERS}
    os.execve(launch.argv[0], list(launch.argv), inherited | launch.env)  # noqa: S606 - no shell, our own list


def _signed_in(url: str, user: str, password: str) -> str:
    """`url` with this user and password in place of those in it."""
    parts = urlsplit(url.rstrip("/"))
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}"
