"""The client of the operator's API: JSON answers, or one error that says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from config.connections.http_client import http_client, is_loopback
from config.operator_token import FILE_SETTING, require_token, token_file, token_of_environment
from config.redaction import public_url
from config.settings import Settings, settings
from protocol.errors import BadSetting, OperatorRefused, Unavailable

#: Characters of the whole id of a task or a deal.
WHOLE_ID = 66
#: Seconds for an answer: the API itself waits up to 8 s for servers that do not answer.
ANSWER_SECONDS = 30.0
#: Prefix of a server-sent event's JSON.
_EVENT = "data: "
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - reached, not listened on

Param = str | float | bool | list[str] | None


class OperatorApi:
    """Requests to the operator's API of one pool."""

    def __init__(self, now: Settings) -> None:
        """Raises BadSetting if there is no token."""
        self._url = admin_url(now)
        _refuse_plaintext(self._url, now)
        #: Where a browser finds the operator's web page.
        self.page = f"{public_url(self._url)}/page/"
        self._headers = {"authorization": f"Bearer {_token(now)}"}

    @classmethod
    def open(cls) -> OperatorApi:
        """A client with the settings of this shell. Raises BadSetting."""
        return cls(settings())

    def get(self, path: str, **params: Param) -> Any:
        """The answer to GET. Raises OperatorRefused, Unavailable."""
        return self._call("GET", path, params, None)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = ANSWER_SECONDS, **params: Param
    ) -> Any:
        """The answer to POST, which may take so many seconds. Raises OperatorRefused, Unavailable."""
        return self._call("POST", path, params, body, seconds)

    def follow(self, path: str) -> Iterator[Any]:
        """The answers of a route of server-sent events, one after the other. Raises OperatorRefused, Unavailable."""
        try:
            with (
                http_client(
                    f"{self._url}/admin", timeout=ANSWER_SECONDS, headers=self._headers, answer_seconds=None
                ) as http,
                http.stream("GET", path) as answer,
            ):
                if not answer.is_success:
                    answer.read()
                    self._content(answer)
                for line in answer.iter_lines():
                    if line.startswith(_EVENT):
                        yield json.loads(line.removeprefix(_EVENT))
        except (httpx.HTTPError, ValueError) as error:
            raise self._away(error) from error
        raise Unavailable(what=f"The operator's API at {public_url(self._url)}", why="it ended the connection")

    def whole_id(self, kind: str, given: str) -> str:
        """The whole id of a task or a deal (`kind`) of which the beginning is given, as part of a path. Raises
        OperatorRefused.
        """
        if len(given) >= WHOLE_ID:
            return part_of_path(given)
        found = self.explain(given)
        if found["kind"] != kind:
            says = f"{found['id']} is a {found['kind']}, not a {kind}."
            raise OperatorRefused(says=says, fix=f"Try `sluice {found['kind']} show {given}`.")
        return str(found["id"])

    def explain(self, given: str) -> Any:
        """What is said of an id, of its beginning, or of a wallet. Raises OperatorRefused."""
        return self.get(f"/explain/{part_of_path(given)}")

    def _call(
        self,
        method: str,
        path: str,
        params: Mapping[str, Param],
        body: Mapping[str, Any] | None,
        seconds: float = ANSWER_SECONDS,
    ) -> Any:
        """Send one request and return its JSON. Raises OperatorRefused, Unavailable."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            with http_client(f"{self._url}/admin", timeout=seconds, headers=self._headers) as http:
                answer = http.request(method, path, params=given, json=body)
        except httpx.HTTPError as error:
            raise self._away(error) from error
        return self._content(answer)

    def _away(self, error: Exception) -> Unavailable:
        """The error for an API that cannot be reached."""
        why = f"{str(error) or type(error).__name__}: see that `sluice scheduler run` runs, and set SLUICE_ADMIN_URL"
        return Unavailable(what=f"The operator's API at {public_url(self._url)}", why=why)

    def _content(self, answer: httpx.Response) -> Any:
        """An answer's JSON. Raises OperatorRefused, Unavailable if it is no success."""
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.is_success and content is not None:
            return content
        said = content if isinstance(content, dict) else {}
        error_text = str(said.get("error") or f"it answered HTTP {answer.status_code} without JSON")
        if answer.is_server_error:
            raise Unavailable(what=f"The operator's API at {public_url(self._url)}", why=error_text.rstrip("."))
        fix = str(said.get("fix") or "See that SLUICE_ADMIN_URL names the operations port of a scheduler.")
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            fix = "Give the content of admin.token in the scheduler's SLUICE_HOME in SLUICE_ADMIN_TOKEN."
        raise OperatorRefused(says=error_text, fix=fix)


def part_of_path(given: str) -> str:
    """What somebody typed as one part of a path: with a `/` in it, it would be another route."""
    return quote(given, safe="")


def admin_url(now: Settings) -> str:
    """Where the operator's API is: SLUICE_ADMIN_URL, else this machine's operations port."""
    if now.admin_url is not None:
        return now.admin_url.rstrip("/")
    host = _ALL_ADDRESSES.get(now.operations_host, now.operations_host)
    return f"http://{f'[{host}]' if ':' in host else host}:{now.operations_port}"


def _token(now: Settings) -> str:
    """The operator's token, from SLUICE_ADMIN_TOKEN or else the file. Raises BadSetting."""
    given = token_of_environment(now)
    if given is not None:
        return given
    path = token_file(now)
    try:
        return require_token(path.read_text(errors="replace"), FILE_SETTING)
    except OSError as error:
        raise BadSetting(
            name=FILE_SETTING,
            why=f"{path} cannot be read ({error.strerror})",
            fix="Run this where the scheduler's SLUICE_HOME is, or give the token in SLUICE_ADMIN_TOKEN.",
        ) from error


def _refuse_plaintext(url: str, now: Settings) -> None:
    """Raise BadSetting if the token would cross a network in clear."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or "") and not now.allow_plaintext:
        fix = "Use https, or an SSH tunnel and http://127.0.0.1 (SLUICE_ALLOW_PLAINTEXT=true for a network you trust)."
        raise BadSetting(name="SLUICE_ADMIN_URL", why="the operator's token would be sent in clear", fix=fix)
