"""Whether a scheduler runs, on any host: by what it writes while it does, and by the consumers of its wallet's queue.

    sweep        a row of `cursors` changes at each                 processes `pipeline` and `beat`
    blocks       the watcher's row changes at each                  process `watch`
    leases       a row for each wallet's lane, held while it runs   process `lane`
    RabbitMQ     a consumer of the wallet's queue                   process `lane`, also while it has nothing to send

Times in rows are of other hosts' clocks: that a row changes counts, not when it says that it did. RabbitMQ is asked if
it answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from amqp.exceptions import NotFound

from config import topology
from config.celery_apps import core_app
from config.settings import Settings
from ops.in_flight import CHECK_SECONDS
from pipeline.broker.link import BROKER_ERRORS
from pipeline.store.database.activity import Activity
from protocol.errors import NotPossible
from protocol.types import Wallet

#: Sweeps that must be missing before the scheduler counts as stopped.
QUIET_SWEEPS = 2.0
#: Seconds for RabbitMQ to answer.
_ANSWER_SECONDS = 5.0

T = TypeVar("T")


def watch(
    read: Callable[[], T],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[T, T]:
    """The first result of `read`, and the first different one within `seconds`; the same twice if there is none."""
    end, first = clock() + seconds, read()
    now = first
    while now == first and clock() < end:
        sleep(CHECK_SECONDS)
        now = read()
    return first, now


def require_stopped(
    activity: Activity,
    settings: Settings,
    wallets: Iterable[Wallet],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Raise NotPossible if a scheduler works on this database, or waits for messages of one of these wallets' lanes."""
    # A lease that is held now is either renewed by then, or has expired.
    seconds = max(QUIET_SWEEPS * settings.sweep_seconds, activity.leases_end_in())
    first, now = watch(activity.marks, seconds, clock=clock, sleep=sleep)
    if changed := sorted(name for name in (*first, *now) if first.get(name) != now.get(name)):
        rows = " and ".join(dict.fromkeys(changed))
        what = f"A scheduler works on this database: stop it first, on every machine. (It writes {rows} in `cursors`.)"
        raise NotPossible(what=what)
    # Last: a process that has just ended is gone from RabbitMQ by now.
    require_no_consumer(settings, wallets)


def require_no_consumer(settings: Settings, wallets: Iterable[Wallet]) -> None:
    """Raise NotPossible if something consumes the messages of one of these wallets' lanes at the settings' RabbitMQ."""
    for queue in _consumed(settings, [topology.lane_queue_name(wallet) for wallet in wallets]):
        raise NotPossible(
            what=f"RabbitMQ has a consumer of the queue {queue}, so a scheduler of this wallet runs: stop it first, on"
            " every machine. Of a machine that has died, RabbitMQ knows that within a minute."
        )


def _consumed(settings: Settings, queues: Collection[str]) -> list[str]:
    """Those of the queues in vhost core that have a consumer; none if RabbitMQ does not answer."""
    found = []
    try:
        with core_app(settings).connection_for_write(connect_timeout=_ANSWER_SECONDS) as connection:
            for queue in queues:
                channel: Any = connection.channel()
                try:
                    if channel.queue_declare(queue, passive=True).consumer_count > 0:
                        found.append(queue)
                except NotFound:
                    continue
    except BROKER_ERRORS:
        return found
    return found
