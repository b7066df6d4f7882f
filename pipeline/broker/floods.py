"""Cuts off machines that have RabbitMQ keep what they send: a message without an end.

Only once it has a whole message does RabbitMQ ask whether its sender may publish, and how large it is. Until then it
keeps what has come in memory: 400 MB in 7 s from one connection (measured on 3.10); and when it is short of memory, it
takes no messages of anybody. A machine that does its work sends a few bytes for each message that it takes. So when
RabbitMQ's memory has grown, machines that have sent far more lose their user. That closes their connections, which
frees all that they hold, and they have to sign in again.
"""

from __future__ import annotations

import threading

import structlog

from pipeline.broker.admin import BrokerAdmin
from protocol.errors import BrokerUnavailable
from protocol.types import Wallet

log = structlog.get_logger(__name__)

#: Seconds between two looks at the memory; RabbitMQ makes its statistics as often.
LOOK_SECONDS = 5.0
#: Bytes by which it has to grow before connections are listed. By itself it moves by some 30 MB.
GROWN_BYTES = 32 * 2**20
#: Looks at connections after it has grown: their statistics may be older than its own.
LOOKS = 3
#: Bytes that a machine may send on the connections that it has open: acknowledgements of 100,000 messages.
MACHINE_BYTES = 8 * 2**20


class Floods:
    """Looks at RabbitMQ's memory, and at who sends when it has grown."""

    def __init__(self, broker: BrokerAdmin) -> None:
        self._broker = broker
        #: The least memory seen since the connections were last listed.
        self._least = 0
        self._looks = 0

    def run(self, stop: threading.Event) -> None:
        """Look every LOOK_SECONDS until `stop` is set."""
        while not stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except BrokerUnavailable as error:
                log.info("Cannot look at RabbitMQ's memory now.", action="floods_again", why=str(error))

    def look(self) -> list[Wallet]:
        """Cut off machines that have sent too much if the memory has grown; which. Raises BrokerUnavailable."""
        used = self._broker.memory()
        if used - self._least > GROWN_BYTES:
            self._least, self._looks = used, LOOKS
        self._least = min(self._least, used)
        if not self._looks:
            return []
        self._looks -= 1
        flooding = [wallet for wallet, sent in self._broker.sent_by_machines().items() if sent > MACHINE_BYTES]
        for wallet in flooding:
            log.warning("A machine has sent RabbitMQ far more than its work takes.", action="flood", wallet=wallet)
            self._broker.revoke(wallet)
        return flooding
