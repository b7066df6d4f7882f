"""Raw AMQP for tests of what an attacker could send: no Celery, no kombu."""

from __future__ import annotations

from contextlib import ExitStack

import amqp

from protocol.wire import BrokerAccess
from tests.waiting import ample


def connect(access: BrokerAccess, *, vhost: str | None = None) -> amqp.Connection:
    """A connection with a worker's own user."""
    connection = amqp.Connection(
        f"{access.host}:{access.port}",
        userid=access.username,
        password=access.password,
        virtual_host=vhost or access.vhost,
        connect_timeout=ample(5),
        read_timeout=ample(5),
        write_timeout=ample(5),
    )
    with ExitStack() as if_refused:
        if_refused.callback(connection.collect)
        connection.connect()
        if_refused.pop_all()
    return connection
