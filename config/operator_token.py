"""The bearer token of the operator's API: where it is stored, and which tokens are accepted.

The API makes and demands it (`pipeline.api.admin.access`), the commands send it (`ops.admin.client`).
"""

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
    """The file with the token: SLUICE_ADMIN_TOKEN_FILE, or `admin.token` in SLUICE_HOME."""
    return settings.admin_token_file or settings.home / "admin.token"


def token_of_environment(settings: Settings) -> str | None:
    """The token in SLUICE_ADMIN_TOKEN; None if that is unset. Raises BadSetting, whose text never repeats it."""
    given = settings.admin_token
    return None if given is None else require_token(given.get_secret_value(), "SLUICE_ADMIN_TOKEN")


def require_token(token: str, setting: str) -> str:
    """The token without spaces around it. `setting`: where it comes from.

    Raises BadSetting, whose text never repeats it, if it is short or cannot stand in an HTTP header.
    """
    token = token.strip()
    if len(token) < SHORTEST or not all("!" <= character <= "~" for character in token):
        why = f"the token has fewer than {SHORTEST} characters, or others than printable ASCII without spaces"
        raise BadSetting(name=setting, why=why, fix="Give the content of admin.token in the scheduler's SLUICE_HOME.")
    return token


def new_token() -> str:
    """A new random token, as the content of the token file."""
    return f"{secrets.token_urlsafe(TOKEN_BYTES)}\n"
