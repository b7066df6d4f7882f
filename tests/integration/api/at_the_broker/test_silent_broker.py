"""A broker that takes messages and says nothing: frozen, or with an alarm."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from config.celery_apps import core_app
from pipeline.broker.notify import Notifier
from protocol.errors import BrokerUnavailable
from tests.integration.api.conftest import Api


@contextmanager
def passing_on(host: str, port: int, frozen: threading.Event) -> Iterator[int]:
    """A port that passes on to `host:port`, until `frozen`: then what comes back is held."""

    def copy(source: socket.socket, target: socket.socket, *, back: bool) -> None:
        try:
            while data := source.recv(65536):
                if back and frozen.is_set():
                    return
                target.sendall(data)
        except OSError:
            source.close()

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((host, port))
            kept.extend((near, far))
            threading.Thread(target=copy, args=(near, far), kwargs={"back": False}, daemon=True).start()
            threading.Thread(target=copy, args=(far, near), kwargs={"back": True}, daemon=True).start()

    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_a_message_that_is_not_confirmed_in_time_is_given_up(api: Api) -> None:
    parts = urlsplit(api.settings.amqp_url.get_secret_value())
    frozen = threading.Event()
    with passing_on(str(parts.hostname), parts.port or 5672, frozen) as port:
        url = SecretStr(f"amqp://{parts.username}:{parts.password}@127.0.0.1:{port}")
        notifier = Notifier(core_app(api.settings.model_copy(update={"amqp_url": url})), api.services.pool.scheduler)
        notifier.send_assign()
        frozen.set()
        for _ in range(2):
            # First on the connection that there was, then on a new one. Without an end to it this would wait for ever.
            with pytest.raises(BrokerUnavailable):
                notifier.send_assign()
        frozen.clear()
        notifier.send_assign()
        notifier.close()
