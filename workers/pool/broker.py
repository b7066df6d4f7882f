"""The machine's connection to its own two queues: its Celery app, which consumes them and publishes nothing.

The password is read from the session file at each connection, so a new sign-in by any process serves all of them.
"""

from __future__ import annotations

import structlog
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed
from celery import Celery
from kombu.exceptions import KombuError

from config.celery_apps import ConfirmTimeoutCelery, connect_machine, machine_app
from config.connections.broker_tls import tls_trouble
from workers import tasks
from workers.context import Machine
from workers.pool.broker_reach import require_tls

log = structlog.get_logger(__name__)


def celery_app(machine: Machine) -> ConfirmTimeoutCelery:
    """The machine's app with its tasks. Needs a session."""
    app = machine_app(machine.wallet)
    connect(app, machine)
    return app


def connect(app: ConfirmTimeoutCelery, machine: Machine) -> None:
    """Have `app`, made by `machine_app`, do the tasks of `machine` at the broker of its session. Raises BadSetting."""
    access, ca_file = machine.session.current().broker, machine.settings.amqp_ca_file
    require_tls(access.nodes, tls=access.tls, allowed=machine.settings.allow_plaintext)
    connect_machine(app, access, ca_file, lambda: machine.session.current().broker.password)
    tasks.serve(app, machine)


def sign_in_if_refused(app: Celery, machine: Machine) -> None:
    """Connect to the broker once, to check this machine's password; sign in at the pool again if the broker refuses it.

    If the broker is away or not trusted, that is logged only. Raises PoolUnavailable, Refused from the sign-in.
    """
    token = machine.session.current().token
    try:
        with app.connection_for_write() as connection:
            connection.connect()
    except (AccessRefused, NotAllowed) as error:
        if "limit" in str(error):
            # Of connections, by the virtual host or the user: the machine is known, and others come and go.
            log.warning("The broker takes no more connections.", action="broker_away", why=str(error))
            return
        log.warning("The broker refuses us, signing in again.", action="broker_refused", why=str(error))
        machine.session.renew(token)
    except (OSError, AMQPError, KombuError) as error:
        trouble = tls_trouble(error, machine.session.current().broker.host)
        if trouble is not None:
            # The machine stays up: votes that it has sent must be revealed, and the cause may be fixed at the pool.
            log.error(f"The broker is not trusted: {trouble}.", action="broker_not_trusted", why=str(error))  # noqa: TRY400
            return
        log.warning("The broker does not answer.", action="broker_away", why=str(error))
