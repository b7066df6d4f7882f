"""Passwords of MongoDB and RabbitMQ from files, put into the addresses that name their users: no variable holds one.

SLUICE_MONGODB_URI=mongodb://sluice@host/…   SLUICE_MONGODB_PASSWORD_FILE ─► mongodb://sluice:…@host/…
SLUICE_AMQP_URL=amqp://sluice@host           SLUICE_AMQP_PASSWORD_FILE    ─► amqp://sluice:…@host
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import SecretStr

from config.values.variables import PREFIX
from protocol.errors import BadSetting

#: Settings of addresses, each with that of the file.
FILES = {"mongodb_uri": "mongodb_password_file", "amqp_url": "amqp_password_file"}
#: A user and its password, if there is one, in each address of several.
_USER = re.compile(r"(?<=://)([^:/@\s]+)(?::([^/@\s]*))?@")


def addresses_with_passwords(settings: object) -> dict[str, SecretStr]:
    """The addresses among these settings whose passwords come from files, by name. Raises BadSetting."""
    return {
        setting: SecretStr(with_password(getattr(settings, setting).get_secret_value(), setting, file))
        for setting, name in FILES.items()
        if (file := getattr(settings, name)) is not None
    }


def with_password(address: str, setting: str, file: Path) -> str:
    """The address with the file's password for each user. `setting`: the address's, as in FILES.

    Raises BadSetting if the file cannot be read or is empty, or the address names no user or has another password.
    """
    name = f"{PREFIX}{FILES[setting].upper()}"
    try:
        password = file.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise BadSetting(name=name, why=why, fix="Name a file that this user may read.") from error
    if not password:
        raise BadSetting(name=name, why=f"{file} is empty", fix="Write the password into it.")
    users = _USER.findall(address)
    fix = f"Name the user alone in {PREFIX}{setting.upper()}, as in ://sluice@host."
    if not users:
        raise BadSetting(name=name, why="there is no user whose password it could be", fix=fix)
    # The file's own password is there where settings are read anew from what was read.
    if any(given and unquote(given) != password for _, given in users):
        raise BadSetting(name=name, why=f"{PREFIX}{setting.upper()} has another password as well", fix=fix)
    return _USER.sub(lambda user: f"{user[1]}:{quote(password, safe='')}@", address)
