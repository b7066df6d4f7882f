"""Errors as answers: a status, and JSON `{"error": what happened, "fix": what to do}`. The only place that maps them.

BadMessage 400   NotSignedIn, NotOperator 401   Refused 403   NotFound 404   TooSlow 408
NotPossible, NotYet, UnderWay, WrongOffset 409   TooLarge 413   TooManyRequests 429   Unavailable 503
"""

from __future__ import annotations

import httpx
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException

from protocol.errors import (
    BadMessage,
    NotFound,
    NotOperator,
    NotPossible,
    NotSignedIn,
    NotYet,
    Refused,
    SluiceError,
    StorageUnavailable,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unavailable,
    UnderWay,
    WrongOffset,
)
from protocol.results.resumed_upload import OFFSET_HEADER

log = structlog.get_logger(__name__)

#: Status and default advice per error, the most special first.
_ANSWERS: tuple[tuple[type[SluiceError], int, str], ...] = (
    (TooSlow, 408, "Send it again, or the rest of it: docs/worker-protocol.md, Upload."),
    (TooLarge, 413, "Send less; results are capped by SLUICE_MAX_RESULT_BYTES."),
    (
        BadMessage,
        400,
        "Compare the request with docs/worker-protocol.md, or with the OpenAPI document of the operator.",
    ),
    (NotSignedIn, 401, "Sign in again: POST /workers/challenge, then POST /workers/login."),
    (
        NotOperator,
        401,
        "Send `Authorization: Bearer` and the content of admin.token in the scheduler's SLUICE_HOME.",
    ),
    (Refused, 403, "Nothing to retry: this wallet may not do that."),
    (NotFound, 404, "Check the path."),
    (NotPossible, 409, "See `sluice stake show`."),
    (NotYet, 409, "Try again in a block or two."),
    (UnderWay, 409, "Try again in a few seconds."),
    (WrongOffset, 409, f"Send the zip from the byte in the header {OFFSET_HEADER} on."),
    (TooManyRequests, 429, "Ask again after the seconds in the header Retry-After."),
    (Unavailable, 503, "Try again in a few seconds."),
)
#: Characters of a path that an answer repeats.
LONGEST_PATH = 100
#: Seconds that a client should wait before it asks again.
RETRY_AFTER = "2"


#: What to do about a resource that is not there, by the first word of its name.
_MISSING = {
    "task": "Check the id; a new deal is known a block or two after it was matched.",
    "deal": "Check the id; a new deal is known a block or two after it was matched.",
    "replicate": "GET /tasks/{id} lists the workers that were given the task.",
    "output": "GET /tasks/{id} lists the workers; a worker reports what its app printed when the app has ended.",
    "message": "`sluice dead ls` lists those that are there.",
    "invite": "`sluice enrol show` lists those that are there.",
    "row": "`sluice quarantine ls` lists those that are there.",
    "worker": "Check the address; a machine is known from its first sign-in on.",
    "workerpool": "This API serves one workerpool on one chain: GET /config names both.",
}


def _missing(error: SluiceError) -> str | None:
    """The word for what was not found that iExec's clients look for; None for other errors."""
    return _MISSING.get(str(error.fields["what"]).partition(" ")[0]) if isinstance(error, NotFound) else None


def answer(error: SluiceError) -> JSONResponse:
    """The response to an error of ours."""
    for kind, status, fix in _ANSWERS:
        if isinstance(error, kind):
            headers = (
                {"retry-after": str(error.fields.get("seconds", RETRY_AFTER))} if status in {409, 429, 503} else {}
            )
            if isinstance(error, WrongOffset):
                headers[OFFSET_HEADER] = str(error.fields["held"])
            if status in {408, 413}:
                # What is left of the body is not read.
                headers["connection"] = "close"
            return JSONResponse({"error": str(error), "fix": _missing(error) or fix}, status, headers)
    log.error("Unexpected error in the API.", action="api_error", why=str(error))
    return JSONResponse({"error": "The scheduler failed.", "fix": "Tell the pool's operator."}, 500)


def install(app: FastAPI, *, bad_request: str | None = None) -> None:
    """Install handlers that answer every error of ours, of validation and of the database in this form.

    `bad_request`: what to do about a request that is not valid, if not what machines and requesters are told.
    """

    @app.exception_handler(SluiceError)
    def ours(_: Request, error: SluiceError) -> JSONResponse:
        """The answer to an error of ours."""
        if bad_request is not None and type(error) is BadMessage:
            return JSONResponse({"error": str(error), "fix": bad_request}, httpx.codes.BAD_REQUEST)
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Never the input itself: it may be long, or hold a signature.
        """The answer to a request that FastAPI does not accept."""
        first = error.errors()[0]
        where, *names = (str(part) for part in first["loc"])
        id_ = first["type"] == "string_pattern_mismatch" and "^0x" in first["msg"]
        why = "it is 0x and hex digits" if id_ else first["msg"]
        if bad_request is not None and where in {"path", "query"}:
            # A word of the operator's own, who sees no message.
            return JSONResponse({"error": f"{names[0]} is wrong: {why}.", "fix": bad_request}, httpx.codes.BAD_REQUEST)
        return ours(_, BadMessage(why=f"{'.'.join((where, *names))}: {why}"))

    @app.exception_handler(PyMongoError)
    def database(_: Request, error: PyMongoError) -> JSONResponse:
        """The answer while MongoDB does not answer: 503."""
        log.warning("MongoDB does not answer.", action="api_database", why=str(error))
        return answer(StorageUnavailable(what="the database", why=type(error).__name__))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        """The answer to a path or method that no route has, and to what a route raises as HTTPException."""
        said = str(error.detail)
        if error.status_code == 404:
            # Only what no route matched: a resource that is missing is a NotFound.
            said = f"This API has no {request.method} {request.url.path[:LONGEST_PATH]}."
        return JSONResponse({"error": said, "fix": "Check method and path."}, error.status_code, error.headers)
