"""The read-only user `monitor`, for people: at RabbitMQ's page, and at Flower where strangers may reach it.

    SLUICE_HOME/monitor.password ──► RabbitMQ's user, tag `monitoring`: sees queues and counts, reads no message
                                └──► Flower's sign-in, unless it listens on loopback only

The password is made at the first start, stands in the file only, and is never logged. Hosts of one pool have the same
file; where they do not, RabbitMQ's user has the one of the host that started last.
"""

from __future__ import annotations

import stat
from pathlib import Path

from config.connections.http_client import is_loopback
from config.settings import Settings
from config.values.endpoints import ALL_ADDRESSES
from config.whole_files import create_whole
from pipeline.broker.admin import BrokerAdmin
from pipeline.broker.machine_rights import new_password
from pipeline.broker.users import monitor_user
from protocol.errors import BadSetting

#: In SLUICE_HOME.
FILE = "monitor.password"
#: Fewest characters of a password that a person chose.
SHORTEST = 16


def password_file(settings: Settings) -> Path:
    """The file with the password."""
    return settings.home / FILE


def monitor_password(settings: Settings) -> str:
    """The password, made if there is none yet: of several processes that make it at once, one does.

    Raises BadSetting, whose text never repeats it, if others can read the file or it is too short.
    """
    path = password_file(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        create_whole(path, f"{new_password()}\n", mode=0o600)
    try:
        password, mode = path.read_text().strip(), stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(name=str(path), why="it cannot be read", fix="Check its permissions.") from error
    if mode & 0o077:
        raise BadSetting(name=str(path), why=f"others may read it (mode {mode:o})", fix=f"Run: chmod 600 {path}")
    # Flower takes several sign-ins, between commas.
    if len(password) < SHORTEST or not password.isascii() or not password.isprintable() or "," in password:
        why = f"it has fewer than {SHORTEST} characters, or a comma, or others than printable ASCII"
        raise BadSetting(name=str(path), why=why, fix="Remove the file: the next start makes a new password.")
    return password


def admit_monitor(admin: BrokerAdmin, settings: Settings) -> None:
    """Give RabbitMQ's user the password of the file. Raises BadSetting, BrokerUnavailable."""
    admin.admit_monitor(monitor_password(settings))


def flower_sign_in(settings: Settings) -> str | None:
    """User and password that Flower asks for; None where only this machine reaches it. Raises BadSetting."""
    # "All addresses" counts as loopback for whoever connects to it, and is the opposite for what listens there.
    if is_loopback(settings.flower_host) and settings.flower_host not in ALL_ADDRESSES:
        return None
    return f"{monitor_user(settings.amqp_core_vhost)}:{monitor_password(settings)}"
