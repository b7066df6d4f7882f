"""The operator's token: a file that the API makes at its first start, and the check that every route here has.

                     with the token      without, from this machine      without, from elsewhere
    GET              answered            answered (the web page)         401
    anything else    done                401                             401

Whoever has the token can stop the pool, so the file is mode 600. A laptop gets a copy of its content in
SLUICE_ADMIN_TOKEN; to replace it, delete the file and start the API again.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from config.http_client import is_loopback
from config.settings import Settings
from config.whole_files import create_whole
from pipeline.api.services import Services
from protocol.errors import BadSetting, NotOperator

#: Random bytes of a token, and the fewest characters of one that a person chose.
TOKEN_BYTES, SHORTEST = 32, 24
_SETTING = "SLUICE_ADMIN_TOKEN_FILE"


def token_file(settings: Settings) -> Path:
    """Where the token is."""
    return settings.admin_token_file or settings.home / "admin.token"


def operator_token(settings: Settings) -> str:
    """The token that the API demands: SLUICE_ADMIN_TOKEN or the file's, which is made if absent. Raises BadSetting."""
    if settings.admin_token is not None:
        return _checked(settings.admin_token.get_secret_value(), "SLUICE_ADMIN_TOKEN")
    path = token_file(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        create_whole(path, f"{secrets.token_urlsafe(TOKEN_BYTES)}\n", mode=0o600)
    if path.stat().st_mode & 0o077:
        raise BadSetting(name=_SETTING, why=f"{path} can be read by others", fix=f"Run chmod 600 {path}.")
    return _checked(path.read_text().strip(), _SETTING)


def _checked(token: str, setting: str) -> str:
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        why = f"the token has fewer than {SHORTEST} characters, or others than printable ASCII"
        raise BadSetting(name=setting, why=why, fix="Delete it: the API makes a new one at its next start.")
    return token


_bearer = HTTPBearer(auto_error=False, description="The content of SLUICE_ADMIN_TOKEN_FILE.")


Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _operator(request: Request, credentials: Given) -> Services:
    """The services, for a request with the operator's token. Raises NotOperator."""
    services = request.app.state.services
    assert isinstance(services, Services)
    given = "" if credentials is None else credentials.credentials
    if not secrets.compare_digest(given.encode(), str(request.app.state.admin_token).encode()):
        raise NotOperator(why="the operator's token is missing" if not given else "that is not the operator's token")
    return services


def _reader(request: Request, credentials: Given) -> Services:
    """The services, for a request with the operator's token or one from this machine without. Raises NotOperator."""
    if "authorization" not in request.headers and _from_this_machine(request):
        services = request.app.state.services
        assert isinstance(services, Services)
        return services
    return _operator(request, credentials)


def _from_this_machine(request: Request) -> bool:
    """Whether it came over loopback and was meant for it.

    A page of a stranger that the operator's browser shows can send requests here under a name of its own (DNS
    rebinding): then `Host` has that name. A proxy on this machine passes on what came from elsewhere, and adds a header
    of `_FORWARDED`.
    """
    client = request.client.host if request.client is not None else ""
    return (
        is_loopback(client)
        and is_loopback(request.url.hostname or "")
        and not any(name in request.headers for name in _FORWARDED)
    )


#: Headers with which proxies say that a request is somebody else's.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")

Operator = Annotated[Services, Depends(_operator)]
Reader = Annotated[Services, Depends(_reader)]
