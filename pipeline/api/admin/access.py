"""Who may use the operator's API: the check that every route here has.

                     with the token      without, from this machine      without, from elsewhere
    GET              answered            answered (the web page)         401
    anything else    done                401                             401

"From this machine" cannot be told from what a program on this machine passes on for somebody else (nginx with its
defaults, socat, `ssh -g`): whoever has such a thing in front of the port sets SLUICE_ADMIN_SIGN_IN=always, and then no
request is answered without the token.

Whoever has the token can stop the pool, so its file is mode 600; the API makes it at its first start, and looks at each
request whether it has changed (`sluice keys rotate`). A laptop gets a copy of its content in SLUICE_ADMIN_TOKEN.
"""

from __future__ import annotations

import secrets
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from config.connections.http_client import is_loopback
from config.operator_token import FILE_SETTING, new_token, require_token, token_file, token_of_environment
from config.settings import Settings
from config.whole_files import create_whole
from pipeline.api.services import Services
from protocol.errors import BadSetting, NotOperator

log = structlog.get_logger(__name__)


def operator_token(settings: Settings) -> str:
    """The token that the API demands: SLUICE_ADMIN_TOKEN or the file's, which is made if absent. Raises BadSetting."""
    given = token_of_environment(settings)
    if given is not None:
        return given
    path = token_file(settings)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        create_whole(path, new_token(), mode=0o600)
    if path.stat().st_mode & 0o077:
        raise BadSetting(name=FILE_SETTING, why=f"{path} can be read by others", fix=f"Run chmod 600 {path}.")
    return require_token(path.read_text(errors="replace"), FILE_SETTING)


class CurrentToken:
    """The token that the API demands now: what is in its file, so that a new one holds at once in every process."""

    def __init__(self, settings: Settings) -> None:
        """Reads the token, and makes its file if there is none. Raises BadSetting."""
        self._settings = settings
        self._path = None if token_of_environment(settings) is not None else token_file(settings)
        self._token = operator_token(settings)
        self._seen = self._mark()

    def current(self) -> str:
        """The token. While its file is away or cannot be used, the one before."""
        mark = self._mark()
        if mark is not None and mark != self._seen:
            self._seen = mark
            try:
                self._token = operator_token(self._settings)
            except (BadSetting, OSError) as error:
                log.warning("The operator's token stays.", action="admin_token_unusable", why=str(error))
        return self._token

    def _mark(self) -> tuple[int, int, int] | None:
        """A value that differs once the file was rewritten; None without a file."""
        try:
            found = None if self._path is None else self._path.stat()
        except OSError:
            return None
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_mode)


_bearer = HTTPBearer(auto_error=False, description="The content of SLUICE_ADMIN_TOKEN_FILE.")


Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _operator(request: Request, credentials: Given) -> Services:
    """The services, for a request with the operator's token. Raises NotOperator."""
    services = request.app.state.services
    assert isinstance(services, Services)
    given = "" if credentials is None else credentials.credentials
    if not secrets.compare_digest(given.encode(), request.app.state.admin_token.current().encode()):
        raise NotOperator(why="the operator's token is missing" if not given else "that is not the operator's token")
    return services


def _reader(request: Request, credentials: Given) -> Services:
    """The services, for a request with the operator's token or one from this machine without. Raises NotOperator."""
    services = request.app.state.services
    assert isinstance(services, Services)
    open_here = services.settings.admin_sign_in == "elsewhere" and "authorization" not in request.headers
    if open_here and _from_this_machine(request):
        return services
    return _operator(request, credentials)


def _from_this_machine(request: Request) -> bool:
    """Whether a request came over loopback, from this machine itself and for its own name.

    A page of a stranger that the operator's browser shows can send requests here under a name of its own (DNS
    rebinding): then `Host` has that name. Many proxies add a header of `_FORWARDED` to what came from elsewhere.
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
