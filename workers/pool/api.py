"""The pool's HTTP API as a worker uses it: configuration, sign-in, ping, reports, results.

Answers are validated like any input from outside. A refused token is renewed once and the request repeated. Nothing
here retries otherwise: the caller knows whether losing the call matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from config.connections.http_client import http_client
from config.connections.http_dates import read_http_date
from config.processes.per_process import PerProcess
from config.settings import Settings
from config.values.endpoints import require_encrypted, require_url
from protocol.errors import (
    BadInput,
    BadMessage,
    BadSetting,
    NotFound,
    NotSignedIn,
    PoolUnavailable,
    Refused,
    SluiceError,
)
from protocol.ethereum.signing import Key
from protocol.results.attestation import Attestation
from protocol.results.error_result import printable
from protocol.results.resumed_upload import DIGEST_HEADER, OFFSET_HEADER, Rest, digest_header, read_offset
from protocol.signin import SignIn
from protocol.types import TaskId, Wallet
from protocol.wire import (
    PROTOCOL,
    PROTOCOL_HEADER,
    Capabilities,
    Challenge,
    ChallengeRequest,
    Leave,
    Login,
    Ping,
    Pong,
    PoolConfig,
    Report,
    Session,
    Stored,
    WorkerModel,
)
from workers.pool import bounded_answer

#: Seconds for a short request; a pool that takes longer is treated as away.
REQUEST_SECONDS = 5.0
#: Seconds without progress while a result is sent or stored.
UPLOAD_SECONDS = 60.0
CHUNK_BYTES = 2**18
#: Bytes of a result from which on it is asked how much of it the pool has already: a smaller one is sent as fast.
RESUMED_BYTES = 2**20
#: Characters of a server's words that an error repeats.
ERROR_CHARACTERS = 400

_SHORT = httpx.Timeout(REQUEST_SECONDS)
_JSON = {"content-type": "application/json"}
Answer = TypeVar("Answer", bound=BaseModel)
_Result = TypeVar("_Result")


class PoolApi:
    """The API at `url`. Safe to carry across a fork: each process opens connections of its own."""

    def __init__(self, url: str) -> None:
        """`url`: http or https, with a path or without. Raises BadSetting."""
        self.url = require_url("SLUICE_API_URL", url, fix="Write it like https://pool.example.").rstrip("/")
        self._http = PerProcess(
            lambda: http_client(self.url, timeout=_SHORT, answer_seconds=bounded_answer.seconds),
            lambda client: client.close(),
        )

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The API at SLUICE_API_URL, which is encrypted, on this machine, or allowed. Raises BadSetting."""
        api = cls(settings.api_url)
        require_encrypted("the pool's API (SLUICE_API_URL)", api.url, allowed=settings.allow_plaintext)
        return api

    def close(self) -> None:
        """Close this process's connections."""
        client = self._http.forget()
        if client is not None:
            client.close()

    def config(self) -> PoolConfig:
        """The pool's `/config`. Raises PoolUnavailable, and BadSetting if something else than a pool answers."""
        try:
            return self._ask("GET", "/config", PoolConfig)
        except (NotFound, BadMessage, Refused) as error:
            raise BadSetting(
                name="SLUICE_API_URL",
                why=f"what answers at {self.url} is no Sluice pool that this version knows: {str(error).rstrip('.')}",
                fix="Set it to the address that the pool's operator told you.",
            ) from error

    def time(self) -> float | None:
        """The pool's clock, Unix seconds, to the second; None if it does not say. Raises PoolUnavailable, BadInput."""
        said = read_http_date(self._send("GET", "/config", token=None, content=None).headers.get("date"))
        return None if said is None else said.timestamp()

    def sign_in(
        self,
        key: Key,
        pool: PoolConfig,
        capabilities: Capabilities,
        *,
        machine: str | None = None,
        take_over: bool = False,
        invite: str | None = None,
    ) -> Session:
        """Prove the wallet and get a token and a broker user. Raises Refused.

        `machine`: this installation; `take_over`: cut off another one that works with this wallet; `invite`: a code
        of the pool's operator.
        """
        challenge = self._ask("POST", "/workers/challenge", Challenge, ChallengeRequest(wallet=key.wallet))
        asked = SignIn.from_typed_data(challenge.typed_data)
        if (asked.chain_id, asked.workerpool) != (pool.chain_id, pool.workerpool):
            raise Refused(why="the sign-in challenge is for another pool")
        login = Login(
            wallet=key.wallet,
            nonce=challenge.nonce,
            signature=asked.sign(key),
            capabilities=capabilities,
            machine=machine,
            take_over=take_over,
            invite=invite,
        )
        headers = {**_JSON, PROTOCOL_HEADER: str(PROTOCOL)}
        return _read(self._send("POST", "/workers/login", token=None, content=_json(login), headers=headers), Session)

    def ping(self, token: str, tasks: list[TaskId], machine: str | None = None) -> Pong:
        """Tell the pool which tasks this machine has; returns what the pool wants of it."""
        return self._ask("POST", "/workers/ping", Pong, Ping(tasks=list(tasks), machine=machine), token=token)

    def leave(self, token: str, machine: str | None = None) -> None:
        """Sign off, so that the pool assigns this machine no new task."""
        self._send("POST", "/workers/leave", token=token, content=_json(Leave(machine=machine)))

    def report(self, token: str, task_id: TaskId, report: Report) -> None:
        """Report one step of a task. `Reports` calls it."""
        self._send("POST", f"/tasks/{task_id}/reports", token=token, content=_json(report))

    def worker(self, wallet: Wallet) -> WorkerModel:
        """A machine's record at the pool. Raises NotFound for one that never signed in."""
        return self._ask("GET", f"/workers/{wallet}", WorkerModel)

    def put_result(self, token: str, task_id: TaskId, zip_path: Path, attestation: Attestation | None = None) -> Stored:
        """Upload a result's zip; may be repeated with the same zip. The upload of a large one goes on where an earlier
        call was cut. `attestation`: of the result's enclave.
        """
        attested = {} if attestation is None else attestation.headers()
        size = zip_path.stat().st_size
        with zip_path.open("rb") as file:
            rest = None
            if size >= RESUMED_BYTES:
                rest = self._rest(token, task_id, size, hashlib.file_digest(file, "sha256").hexdigest())
            first, more = (0, {}) if rest is None else (rest.first, rest.headers())
            file.seek(first)
            response = self._send(
                "PUT",
                f"/tasks/{task_id}/result",
                token=token,
                content=iter(lambda: file.read(CHUNK_BYTES), b""),
                headers={"content-type": "application/zip", "content-length": str(size - first), **more, **attested},
                timeout=httpx.Timeout(UPLOAD_SECONDS, connect=REQUEST_SECONDS),
            )
        return _read(response, Stored)

    def _rest(self, token: str, task_id: TaskId, size: int, sha256: str) -> Rest | None:
        """What the pool does not have yet of a zip; None if it is one that takes only whole ones."""
        try:
            held = self._send(
                "HEAD",
                f"/tasks/{task_id}/result",
                token=token,
                content=None,
                headers={DIGEST_HEADER: digest_header(sha256)},
            )
        except NotSignedIn:
            raise
        except BadInput:
            # An older pool, or a proxy before it that lets no HEAD pass.
            return None
        first = read_offset(held.headers.get(OFFSET_HEADER), size)
        return None if first is None else Rest(first, size, sha256)

    def _ask(
        self, method: str, path: str, answer: type[Answer], body: BaseModel | None = None, *, token: str | None = None
    ) -> Answer:
        """Send a request with a JSON body and read the answer. Raises PoolUnavailable, BadInput."""
        return _read(self._send(method, path, token=token, content=_json(body)), answer)

    def _send(
        self,
        method: str,
        path: str,
        *,
        token: str | None,
        content: bytes | Iterator[bytes] | None,
        headers: Mapping[str, str] = _JSON,
        timeout: httpx.Timeout = _SHORT,
    ) -> httpx.Response:
        """Send a request; the answer is bounded in size and time. Raises PoolUnavailable, BadInput."""
        authorization = {} if token is None else {"authorization": f"Bearer {token}"}
        # Packed, an answer of a few bytes could unpack to gigabytes.
        sent = {**headers, **authorization, "accept-encoding": "identity"}
        try:
            with self._http.get().stream(
                method, self.url + path, content=content, headers=sent, timeout=timeout
            ) as streamed:
                response = bounded_answer.whole(streamed)
        except httpx.HTTPError as error:
            raise PoolUnavailable(what=self.url, why=str(error) or type(error).__name__) from error
        if response.is_success:
            return response
        raise _error(response, self.url)


class UnaskedApi(PoolApi):
    """Stands in for the API of a pool that is refused: it sends nothing, and answers as a pool that is away."""

    def __init__(self, url: str) -> None:
        """`url`: of the pool, for error messages."""
        super().__init__("https://unasked.invalid")
        self.url = url

    def _send(self, *_: object, **__: object) -> NoReturn:
        """Raise PoolUnavailable: nothing is sent."""
        raise PoolUnavailable(what=self.url, why="it is not asked, since what it is or says is refused")


class SignedInApi:
    """The API with this machine's token in each request. If the pool refuses the token, it is renewed once."""

    def __init__(self, api: PoolApi, token: Callable[[], str], renew: Callable[[str], str]) -> None:
        """`token`: returns the present token; `renew`: given a refused token, returns another."""
        self._api = api
        self._token = token
        self._renew = renew

    def ping(self, tasks: list[TaskId], machine: str | None = None) -> Pong:
        """`PoolApi.ping` with the token."""
        return self._with_token(lambda token: self._api.ping(token, tasks, machine))

    def leave(self, machine: str | None = None) -> None:
        """`PoolApi.leave` with the token; a refused token is not renewed for it."""
        self._api.leave(self._token(), machine)

    def report(self, task_id: TaskId, report: Report) -> None:
        """`PoolApi.report` with the token."""
        self._with_token(lambda token: self._api.report(token, task_id, report))

    def put_result(self, task_id: TaskId, zip_path: Path, attestation: Attestation | None = None) -> Stored:
        """`PoolApi.put_result` with the token."""
        return self._with_token(lambda token: self._api.put_result(token, task_id, zip_path, attestation))

    def _with_token(self, act: Callable[[str], _Result]) -> _Result:
        """Call `act` with the token, and once more with a new one if the pool refuses it."""
        token = self._token()
        try:
            return act(token)
        except NotSignedIn:
            return act(self._renew(token))


def _json(body: BaseModel | None) -> bytes | None:
    """A request's body."""
    return None if body is None else body.model_dump_json(exclude_none=True).encode()


def _read(response: httpx.Response, answer: type[Answer]) -> Answer:
    """The answer as its model. Raises BadMessage."""
    try:
        # A pool of a later release may add keys.
        return answer.model_validate_json(response.content, extra="ignore")
    except ValidationError as error:
        raise BadMessage(why=f"the pool's answer to {response.request.url.path} is not a {answer.__name__}") from error


def _words(response: httpx.Response) -> str:
    """What an error's body says: the pool's own sentence, or the beginning of whatever it is."""
    said = _sentence(response)
    if said is None:
        return _line(response.text)
    return _line(said.removeprefix("Refused: ").removeprefix("Not signed in: ").rstrip("."))


def _sentence(response: httpx.Response) -> str | None:
    """The pool's own sentence in an error's body; None if the body is somebody else's, e.g. of a proxy before it."""
    try:
        return str(from_json(response.content)["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _line(words: str) -> str:
    """The beginning of a server's words, as one line without anything that a terminal obeys."""
    return " ".join(printable(words[:ERROR_CHARACTERS]).split())


def _error(response: httpx.Response, url: str) -> SluiceError:
    """The error that an answer's status stands for."""
    why = _words(response)
    if response.is_redirect:
        return BadMessage(why=f"it sends us on to {_line(response.headers.get('location', ''))}")
    match response.status_code:
        case 401:
            return NotSignedIn(why=why)
        case 403:
            return Refused(why=why)
        case 404:
            return NotFound(what=f"{response.request.url.path} there")
        case 408 | 409 | 425 | 429 | 500 | 502 | 503 | 504:
            return PoolUnavailable(what=url, why=f"HTTP {response.status_code}: {why}")
        case status:
            # 400, 413: for good, if these are words of the pool.
            final = status in {400, 413} and _sentence(response) is not None
            return BadMessage(why=f"HTTP {status}: {why}", final=final)
