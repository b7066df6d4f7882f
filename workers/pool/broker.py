"""The machine's connection to its own two queues: its Celery app, and what it publishes to itself.

The password is read from the session file at each connection, so a new sign-in by any process serves all of them.
"""

from __future__ import annotations

from typing import Any

import structlog
from amqp.exceptions import AccessRefused
from celery import Celery, chain
from kombu.exceptions import OperationalError

from config import topology, worker_chains
from config.celery_apps import ConfirmTimeoutCelery, connect_machine, machine_app
from config.worker_chains import Links
from protocol.errors import BrokerUnavailable
from protocol.types import TaskId
from protocol.wire import Mode
from workers import tasks
from workers.context import Machine
from workers.task.replicate import Replicate, Todo

log = structlog.get_logger(__name__)

#: A message that cannot be sent now is not worth a wait: the next block, or the next upkeep, brings another.
_AT_ONCE: dict[str, Any] = {"retry": False}


def celery_app(machine: Machine) -> ConfirmTimeoutCelery:
    """The machine's app with its tasks. Needs a session."""
    app = machine_app(machine.wallet)
    connect(app, machine)
    return app


def connect(app: ConfirmTimeoutCelery, machine: Machine) -> None:
    """Have `app`, made by `machine_app`, do the tasks of `machine` at the broker of its session."""
    access, ca_file = machine.session.current().broker, machine.settings.amqp_ca_file
    connect_machine(app, access, ca_file, lambda: machine.session.current().broker.password)
    tasks.serve(app, machine)


def admit(app: Celery, machine: Machine) -> None:
    """Connect to the broker once, and sign in again if it refuses this machine's password.

    If the broker is away, that is logged. Raises PoolUnavailable, Refused from the sign-in.
    """
    token = machine.session.current().token
    try:
        with app.connection_for_write() as connection:
            connection.connect()
    except AccessRefused as error:
        log.warning("The broker refuses us, signing in again.", action="broker_refused", why=str(error))
        machine.session.renew(token)
    except (OSError, OperationalError) as error:
        log.warning("The broker does not answer.", action="broker_away", why=str(error))


class Publisher:
    """Publishes tasks to the machine's own queues."""

    def __init__(self, app: Celery, machine: Machine) -> None:
        self._app = app
        self._wallet = machine.wallet

    def wake_lane(self) -> None:
        """Publish a run of the lane. Raises BrokerUnavailable."""
        self._send(worker_chains.links(self._app, self._wallet, (topology.WORKER_LANE,)))

    def resume(self, replicate: Replicate, todo: Todo) -> None:
        """Publish what is left to do for a task, by the journal. Raises BrokerUnavailable."""

        def rest(mode: Mode, first: str) -> Links:
            return worker_chains.rest(self._app, self._wallet, replicate.task_id, mode, first)

        match todo:
            case Todo.COMPUTE:
                self._send(worker_chains.compute(self._app, replicate.assignment))
            case Todo.UPLOAD:
                self._send(rest(Mode.SOLO, topology.UPLOAD))
            case Todo.CONTRIBUTE:
                self._send(rest(Mode.VOTE, topology.CONTRIBUTE))
            case Todo.CONTRIBUTE_AND_FINALIZE:
                self._send(rest(Mode.SOLO, topology.CONTRIBUTE_AND_FINALIZE))

    def reveal(self, task_id: TaskId) -> None:
        """Publish the reveal of a vote. Raises BrokerUnavailable."""
        self._send(worker_chains.reveal(self._app, self._wallet, task_id, upload=False))

    def _send(self, links: Links) -> None:
        first, *rest = links
        message: Any = chain(first, *rest) if rest else first
        try:
            message.apply_async(declare=[], **_AT_ONCE)
        except (OSError, OperationalError, AccessRefused) as error:
            exchange = topology.compute_queue_name(self._wallet)
            raise BrokerUnavailable(what=exchange, why=str(error) or type(error).__name__) from error
