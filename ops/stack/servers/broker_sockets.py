"""RabbitMQ's `advanced.config`: options of the sockets on which it takes connections, and a limit of consumers.

`rabbitmq.conf` has no words for most of them, or not in every release. `docker/rabbitmq-advanced.config` has the same,
and explains them.
"""

from __future__ import annotations

import socket

#: Bytes of a connection's buffers in the kernel, and connections that may wait to be taken. The kernel doubles them,
#: and RabbitMQ has another of that size for each connection; what is sent to a machine is a few KB.
BUFFER_BYTES, BACKLOG = 8192, 1024
#: A machine that is cut off without a FIN: seconds without anything from it after which its kernel is asked, seconds
#: between two questions, how many go unanswered, and milliseconds after which the connection is closed in any case.
IDLE_SECONDS, INTERVAL_SECONDS, QUESTIONS, SILENT_MS = 3, 1, 5, 6000
#: Consumers on one channel: a process has one for each queue that it serves, five at most.
MOST_CONSUMERS = 16


def advanced_config() -> str:
    """The file: a list of Erlang terms."""
    silence = [
        f"{{raw, {socket.IPPROTO_TCP}, {option}, <<{value}:32/native>>}}"
        for option, value in (
            (socket.TCP_KEEPIDLE, IDLE_SECONDS),
            (socket.TCP_KEEPINTVL, INTERVAL_SECONDS),
            (socket.TCP_KEEPCNT, QUESTIONS),
            (socket.TCP_USER_TIMEOUT, SILENT_MS),
        )
    ]
    options = [
        f"{{backlog, {BACKLOG}}}",
        "{nodelay, true}",
        f"{{sndbuf, {BUFFER_BYTES}}}",
        f"{{recbuf, {BUFFER_BYTES}}}",
        "{keepalive, true}",
    ]
    kernel = f"{{kernel, [{{inet_default_listen_options, [{', '.join(silence)}]}}]}}"
    consumers = f"{{consumer_max_per_channel, {MOST_CONSUMERS}}}"
    return f"[{kernel}, {{rabbit, [{consumers}, {{tcp_listen_options, [{', '.join(options)}]}}]}}].\n"
