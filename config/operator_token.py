"""The operator's token: where it is, and what it looks like. The API makes and demands it, the commands send it."""

from __future__ import annotations

import secrets
from pathlib import Path

from config.settings import Settings
from protocol.errors import BadSetting

#: Random bytes of a token that is made here.
TOKEN_BYTES = 32
#: Fewest characters of a token that a person chose.
SHORTEST = 24
FILE_SETTING = "SLUICE_ADMIN_TOKEN_FILE"


def token_file(settings: Settings) -> Path:
    """The file that holds it."""
    return settings.admin_token_file or settings.home / "admin.token"


def token_of_environment(settings: Settings) -> str | None:
    """The token in SLUICE_ADMIN_TOKEN; None if that is unset. Raises BadSetting, whose text never repeats it."""
    given = settings.admin_token
    return None if given is None else checked(given.get_secret_value(), "SLUICE_ADMIN_TOKEN")


def checked(token: str, setting: str) -> str:
    """The token without spaces around it, fit for an HTTP header. Raises BadSetting, whose text never repeats it."""
    token = token.strip()
    if len(token) < SHORTEST or not all("!" <= character <= "~" for character in token):
        why = f"the token has fewer than {SHORTEST} characters, or others than printable ASCII without spaces"
        raise BadSetting(name=setting, why=why, fix="Give the content of admin.token in the scheduler's SLUICE_HOME.")
    return token


def new_token() -> str:
    """The content of a new token file."""
    return f"{secrets.token_urlsafe(TOKEN_BYTES)}\n"
