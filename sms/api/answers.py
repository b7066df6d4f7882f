"""Errors as answers, with the statuses that the SDK and iExec's worker understand. The only place that maps them.

BadMessage 400   NotSignedIn, Refused 401   NotFound 404   NotPossible 409   TooLarge 413   TooManyRequests 429
Unavailable 503  NoSession: 401 for what the chain or a signature forbids, 500 for what is missing (iExec SMS 9.3)

No answer repeats a value, a signature or a header.
"""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from protocol.enclave.session import SessionAnswer, SessionError
from protocol.errors import (
    BadMessage,
    NoSession,
    NotFound,
    NotPossible,
    Refused,
    SluiceError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

log = structlog.get_logger(__name__)

#: Status per error, the most special first.
_STATUSES: tuple[tuple[type[SluiceError], int], ...] = (
    (TooLarge, 413),
    (BadMessage, 400),
    (Refused, 401),
    (NotFound, 404),
    (NotPossible, 409),
    (TooManyRequests, 429),
    (Unavailable, 503),
)
#: Reasons without a session for which the worker, the task or the signature is at fault.
_NOT_ALLOWED = frozenset(
    {
        SessionError.INVALID_AUTHORIZATION,
        SessionError.NOT_A_TEE_TASK,
        SessionError.TASK_NOT_ACTIVE,
        SessionError.INVALID_SIGNATURE,
        SessionError.NO_CHALLENGE,
    }
)
#: Seconds after which a client should ask again.
RETRY_AFTER = "2"


def answer(error: SluiceError) -> JSONResponse:
    """The response to an error of ours."""
    if isinstance(error, NoSession):
        return no_session(error)
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if status >= 500:
        log.warning("A request could not be served.", action="sms_cannot", why=str(error))
    headers = {"retry-after": str(error.fields.get("seconds", RETRY_AFTER))} if status in {429, 503} else {}
    return JSONResponse({"error": str(error)}, status, headers)


def no_session(error: NoSession) -> JSONResponse:
    """Why there is no session, in iExec's words."""
    cause = SessionError(str(error.fields["error"]))
    log.info("No session.", action="session_refused", cause=cause.value, why=str(error))
    body = SessionAnswer(error=cause).model_dump(mode="json", by_alias=True)
    return JSONResponse(body, 401 if cause in _NOT_ALLOWED else 500)


def install(app: FastAPI) -> None:
    """Install handlers that answer every error of ours and of validation in this form."""

    @app.exception_handler(SluiceError)
    def ours(_: Request, error: SluiceError) -> JSONResponse:
        """The answer to an error of ours."""
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Never the input itself: it may be a secret in the wrong place.
        """The answer to a request that FastAPI does not accept."""
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        return answer(BadMessage(why=f"{place} is missing, or not of its form"))
