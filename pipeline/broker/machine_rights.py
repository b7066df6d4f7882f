"""What a worker machine has at RabbitMQ: its user's rights and limits, an exchange, two queues. Pure.

    vhost core   the scheduler's user only          vhost pool   one user per worker, `users`
    ┌──────────────────────────────────┐            ┌────────────────────────────────────────────────────────┐
    │ pipeline  lane.<wallet>  dead    │            │ exchange w.<W> ─┬─ w.<W>                               │
    │ celeryev (Flower: its own user)  │            │                 └─ w.<W>.tx                            │
    └──────────────────────────────────┘            │ user <W>: configure nothing, write nothing,            │
                                                    │           read w.<W> and w.<W>.tx                      │
                                                    └────────────────────────────────────────────────────────┘

What stays open to a worker, measured on RabbitMQ 3.10: it may count messages of other queues in `pool` by a passive
declare, purge its own queues, and hold their messages unacknowledged. It can publish, bind and unbind nothing.
"""

from __future__ import annotations

import secrets

from config import topology
from protocol.types import Wallet

#: Random bytes of a broker password: 32 cannot be guessed.
PASSWORD_BYTES = 32
#: Connections of one machine, whatever its slots: one of each of its two Celery workers, one that tries the password,
#: and the same again three times over, because a killed machine's connections stay open for two heartbeats.
MOST_CONNECTIONS = 12
#: A Celery process opens two or three channels on a connection.
MOST_CHANNELS = 4 * MOST_CONNECTIONS
#: A user's limits, as the management API has them.
LIMITS = {"max-connections": MOST_CONNECTIONS, "max-channels": MOST_CHANNELS}
#: Bytes in a worker's queue, and messages, of a few KB each: only the scheduler writes there, some for each slot of a
#: machine. Of more the oldest are dropped, and the sweep publishes again what still matters.
QUEUE_BYTES, QUEUE_MESSAGES = 16 * 2**20, 10_000
#: Milliseconds after which the queue of a machine that never came back is removed: 30 days.
QUEUE_EXPIRES = 30 * 24 * 3600 * 1000


def new_password() -> str:
    """A password that nobody can guess."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def worker_permissions(wallet: Wallet) -> dict[str, str]:
    """The tightest triple that still runs a stock Celery worker; regexes, anchored, on names in vhost `pool`."""
    name = topology.compute_queue_name(wallet).replace(".", r"\.")
    return {"configure": "^$", "write": "^$", "read": rf"^{name}(\.tx)?$"}


def worker_queue_arguments(*, replicated: bool) -> dict[str, object]:
    """How both queues of a worker are declared. `replicated`: with a member on each node of a cluster.

    On a single node a quorum queue has nothing to replicate, and takes twice the memory and CPU of a classic one, which
    keeps what it has confirmed through a crash just as well. A classic queue does not count deliveries: it drops a
    message that comes back again and again once that has expired (`pipeline.broker.segments.EXPIRES`).

    Without dead letters: what a worker does not acknowledge says nothing that the scheduler does not learn otherwise,
    and a worker must not fill a queue of the operator's.
    """
    limits: dict[str, object] = {
        "x-max-length-bytes": QUEUE_BYTES,
        "x-max-length": QUEUE_MESSAGES,
        "x-expires": QUEUE_EXPIRES,
    }
    if not replicated:
        return topology.CLASSIC | limits
    return topology.QUORUM | {"x-delivery-limit": topology.DELIVERY_LIMIT} | limits
