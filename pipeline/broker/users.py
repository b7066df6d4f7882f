"""Names of the users that Sluice makes at RabbitMQ. Users are the broker's, whatever vhosts they may enter: where it
serves several pools, the names tell them apart. Pure but for the host's name.
"""

from __future__ import annotations

import re
import socket
from typing import Final

from config.settings import Settings
from protocol.types import Wallet

#: The vhosts of a broker that serves one pool.
_CORE: Final = "core"
_POOL: Final = "pool"
_WALLET: Final = re.compile(r"^0x[0-9a-f]{40}$")
#: Flower's least permissions on vhost `core` (measured on RabbitMQ 3.10): it can read events, not run tasks.
FLOWER_PERMISSIONS = {
    "configure": r"^(celeryev([.].*)?|(reply[.]|.*[.]reply[.])?celery[.]pidbox)$",
    "write": r"^(celeryev[.].*|(.*[.]reply[.])?celery[.]pidbox)$",
    "read": r"^(celeryev([.].*)?|(.*[.])?reply[.]celery[.]pidbox)$",
}
ALL_PERMISSIONS = {"configure": ".*", "write": ".*", "read": ".*"}
NO_PERMISSIONS = {"configure": "^$", "write": "^$", "read": "^$"}


def flower_user(settings: Settings) -> str:
    """Name of Flower's RabbitMQ user: one per vhost and host, since each Flower gets a new password at its start, which
    ends what others have by the same name.
    """
    return f"flower-{settings.amqp_core_vhost}-{settings.host_name or socket.gethostname()}"


def monitor_user(core: str) -> str:
    """Name of the read-only user for people; with the vhost's name (`core`) where a broker serves several pools."""
    return "monitor" if core == _CORE else f"monitor-{core}"


def machine_user(pool: str, wallet: Wallet) -> str:
    """Name of a machine's user; with the vhost's name (`pool`) where a broker serves several pools: users are the
    broker's, and a machine at two of its pools must not lose its password to the other, nor be cut off by it.
    """
    return wallet if pool == _POOL else f"{wallet}-{pool}"


def wallet_of_user(pool: str, user: str) -> Wallet | None:
    """The machine whose user this is, or None: it is an operator's."""
    wallet = Wallet(user if pool == _POOL else user.removesuffix(f"-{pool}"))
    return wallet if is_wallet(wallet) and user == machine_user(pool, wallet) else None


def is_wallet(name: str) -> bool:
    """Whether a name is a wallet's, in lower case."""
    return _WALLET.match(name) is not None
