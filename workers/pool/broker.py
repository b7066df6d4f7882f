"""The machine's way to its own two queues: its Celery app, the chains it sends itself, and a password that may change.

The password is read from the session file at each connection, so a new sign-in by any process heals all of them.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import structlog
from amqp.exceptions import AccessRefused
from celery import Celery, Signature, chain
from kombu.exceptions import OperationalError

from config.celery_apps import machine_app
from protocol.errors import BrokerUnavailable
from protocol.types import TaskId
from workers import tasks
from workers.task.replicate import Replicate, Todo
from workers.workbench import Machine

log = structlog.get_logger(__name__)

#: A wake-up that cannot be sent now is not worth waiting for: the next head brings another.
_AT_ONCE: dict[str, Any] = {"retry": False}


def celery_app(machine: Machine) -> Celery:
    """The machine's app with its tasks. Needs a session."""
    access = machine.session.current().broker
    app = machine_app(access, machine.wallet, machine.settings.amqp_ca_file)
    scheme = "amqps" if access.tls else "amqp"
    url = f"{scheme}://{quote(access.username, safe='')}@{access.host}:{access.port}/{quote(access.vhost, safe='')}"
    # Without a password in the URL kombu asks this function at each connection.
    app.conf.update(broker_url=url, broker_password=lambda: machine.session.current().broker.password)
    tasks.register(app, machine)
    return app


def admit(app: Celery, machine: Machine) -> None:
    """Make sure that the broker lets us in: sign in again if it does not know us any more.

    A broker that is away is left to whoever needs it. Raises PoolUnavailable, Refused from the sign-in.
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
    """Sends the machine messages of its own."""

    def __init__(self, app: Celery, machine: Machine) -> None:
        self._app = app
        access = machine.session.current().broker
        self._exchange = access.exchange
        self._compute_queue, self._tx_queue = access.compute_queue, access.tx_queue

    def wake_lane(self) -> None:
        """Have the lane look at the chain. Raises BrokerUnavailable."""
        self._send(self._link(tasks.LANE, tx=True))

    def resume(self, replicate: Replicate, todo: Todo) -> None:
        """Go on with a task where the journal says it stands. Raises BrokerUnavailable."""
        finish = self._link(tasks.CONTRIBUTE_AND_FINALIZE, tx=True)
        match todo:
            case Todo.COMPUTE:
                first = self._link(tasks.COMPUTE, replicate.assignment.model_dump(mode="json"))
                rest = [self._link(tasks.UPLOAD), finish] if replicate.solo else [self._link(tasks.CONTRIBUTE, tx=True)]
                self._send(chain(first, *rest))
            case Todo.UPLOAD:
                self._send(chain(self._link(tasks.UPLOAD, replicate.task_id), finish))
            case Todo.CONTRIBUTE:
                self._send(self._link(tasks.CONTRIBUTE, replicate.task_id, tx=True))
            case Todo.CONTRIBUTE_AND_FINALIZE:
                self._send(self._link(tasks.CONTRIBUTE_AND_FINALIZE, replicate.task_id, tx=True))

    def reveal(self, task_id: TaskId) -> None:
        """Reveal a vote. Raises BrokerUnavailable."""
        self._send(self._link(tasks.REVEAL, task_id, tx=True))

    def _link(self, name: str, *args: object, tx: bool = False) -> Signature[Any]:
        return self._app.signature(
            name,
            args=args,
            exchange=self._exchange,
            routing_key=self._tx_queue if tx else self._compute_queue,
        )

    def _send(self, message: Any) -> None:
        try:
            message.apply_async(declare=[], **_AT_ONCE)
        except (OSError, OperationalError, AccessRefused) as error:
            raise BrokerUnavailable(what=self._exchange, why=str(error) or type(error).__name__) from error
