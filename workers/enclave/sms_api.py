"""The secret service as a worker uses it: a session for a task, and the content of a simulated one, once.

    POST /tee/sessions            the authorization, whose hash the worker signs ──► id, and where the session is
    GET  <there>/<id>             keccak of the id, signed ──► the session, which is gone then
    GET  /tee/properties/…        which images run before and after an app of one version of the framework
    POST /secrets/web2            a token to store results by, which the service wants every worker to have

A session's content is in no error and no log line.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import httpx
from pydantic import ValidationError

from config.connections.http_client import http_client
from config.values.endpoints import require_encrypted
from protocol.enclave.secrets import STORE_NAME, storing_hash, wallet_secret
from protocol.enclave.session import (
    FrameworkProperties,
    Session,
    SessionAnswer,
    SessionPlace,
    SessionRequest,
    SignatureValue,
    fetching_hash,
)
from protocol.errors import NoSession, NotFound, NotPossible, Unavailable
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.authorization import authorization_hash
from protocol.types import Hash32
from protocol.wire import Assignment
from workers.pool import bounded_answer

#: Seconds for one request: the service reads the chain before it answers.
REQUEST_SECONDS: Final = 15.0
#: What a worker stores as its token. Our post-compute needs none: the machine uploads with its own sign-in.
TOKEN: Final = b"sluice"
_STORED: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.OK, HTTPStatus.CONFLICT})


class SmsApi:
    """The service at `url`, for the machine of `key`. Every method raises Unavailable if there is no answer, or one
    that no secret service would give.
    """

    def __init__(
        self, url: str, key: Key, *, allow_plaintext: bool = False, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`transport`: for tests. Raises BadSetting for an address elsewhere without encryption."""
        self._url, self._key, self._allow_plaintext, self._transport = url.rstrip("/"), key, allow_plaintext, transport
        self._require_encrypted(self._url)

    def open_session(self, assignment: Assignment) -> SessionPlace:
        """A new session, in place of one that this machine had for the task. Raises NoSession."""
        request = SessionRequest(
            chain_task_id=assignment.task_id,
            worker_wallet=assignment.wallet,
            enclave_challenge=assignment.enclave_challenge,
            signature=SignatureValue(value=assignment.authorization),
        )
        body = request.model_dump_json(by_alias=True).encode()
        answer = self._ask("POST", f"{self._url}/tee/sessions", authorization_hash(*request.subject), body)
        try:
            said = SessionAnswer.model_validate_json(answer.content)
        except ValidationError:
            raise self._odd(answer) from None
        if said.error is not None:
            raise NoSession(error=said.error, why=f"the secret service says {said.error}")
        if said.data is None or not answer.is_success:
            raise self._odd(answer)
        return said.data

    def take_session(self, place: SessionPlace) -> Session:
        """What is in a simulated session, which can be taken once."""
        self._require_encrypted(place.secret_provisioning_url)
        where = f"{place.secret_provisioning_url.rstrip('/')}/{place.session_id}"
        answer = self._ask("GET", where, fetching_hash(place.session_id))
        if not answer.is_success:
            raise self._odd(answer)
        try:
            return Session.model_validate_json(answer.content)
        except ValidationError:
            # Its words would repeat what it read.
            raise self._odd(answer) from None

    def properties(self, framework: str, version: str) -> FrameworkProperties:
        """The images of one version of the framework. Raises NotFound, NotPossible if the service has no such one."""
        answer = self._ask("GET", f"{self._url}/tee/properties/{framework}/{version}")
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise NotFound(what="version of the framework at the secret service")
        if answer.status_code == HTTPStatus.CONFLICT:
            raise NotPossible(what="The secret service serves another framework.")
        if not answer.is_success:
            raise self._odd(answer)
        try:
            return FrameworkProperties.model_validate_json(answer.content)
        except ValidationError:
            raise self._odd(answer) from None

    def store_token(self) -> None:
        """Store TOKEN as this machine's, unless it has one."""
        secret = wallet_secret(self._key.wallet, STORE_NAME)
        answer = self._ask("POST", self._url + secret.path, storing_hash(secret, TOKEN), TOKEN, kind="text/plain")
        if answer.status_code not in _STORED:
            raise self._odd(answer)

    def _ask(
        self,
        method: str,
        url: str,
        signed: Hash32 | None = None,
        body: bytes | None = None,
        *,
        kind: str = "application/json",
    ) -> httpx.Response:
        """Send a request to the secret service, with the machine's signature of `signed`. Raises Unavailable."""
        headers = {"content-type": kind, "accept-encoding": "identity"}
        if signed is not None:
            headers["authorization"] = self._key.sign_message(to_bytes(signed))
        try:
            with (
                http_client(
                    url, timeout=REQUEST_SECONDS, answer_seconds=bounded_answer.seconds, transport=self._transport
                ) as http,
                http.stream(method, url, content=body, headers=headers) as streamed,
            ):
                return bounded_answer.whole(streamed)
        except httpx.HTTPError as error:
            raise Unavailable(what=self._name, why=type(error).__name__) from error

    def _odd(self, answer: httpx.Response) -> Unavailable:
        """The error for an answer that no secret service would give."""
        return Unavailable(what=self._name, why=f"it answers HTTP {answer.status_code}")

    def _require_encrypted(self, url: str) -> None:
        """Raise BadSetting for a plain http URL, unless that is allowed."""
        require_encrypted("the pool's secret service", url, allowed=self._allow_plaintext)

    @property
    def _name(self) -> str:
        """The service in error messages."""
        return f"the secret service at {self._url}"
