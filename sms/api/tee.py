"""Routes for schedulers and workers: the kind of enclave, images, challenges, sessions."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import TypeAdapter, ValidationError

from protocol.enclave.session import AnyId, FrameworkProperties, Session, SessionAnswer, SessionRequest
from protocol.errors import BadMessage
from protocol.types import TaskId
from sms.api.parts import Body, Service, Signature

router = APIRouter(prefix="/tee")

_TASK = TypeAdapter[str](AnyId)


@router.get("/framework")
def framework(service: Service) -> str:
    """The kind of enclave that this service serves, as a JSON text."""
    return service.framework


@router.get("/properties/{framework}")
def properties(service: Service, framework: str) -> JSONResponse:
    """The images around the app, of the first version; iExec Core 8 asks so. 409: another kind of enclave."""
    return _written(service.images(framework))


@router.get("/properties/{framework}/{version}")
def properties_of_version(service: Service, framework: str, version: str) -> JSONResponse:
    """The images around the app, of one version. 404: no such version; 409: another kind of enclave."""
    return _written(service.images(framework, version))


@router.post("/challenges/{task}")
def challenge(service: Service, task: str, body: Body, signature: Signature) -> PlainTextResponse:
    """The address of a task's challenge, for the workerpool's owner, who has signed keccak(task id)."""
    del body
    try:
        task_id = TaskId(_TASK.validate_python(task))
    except ValidationError:
        raise BadMessage(why="a task's id is 0x and 64 hex digits") from None
    return PlainTextResponse(service.challenge(task_id, signature))


@router.post("/sessions")
def open_session(service: Service, body: Body, signature: Signature) -> JSONResponse:
    """A session for a worker that brings its authorization, and has signed its hash."""
    try:
        request = SessionRequest.model_validate_json(body)
    except ValidationError:
        raise BadMessage(why="the authorization is not of its form") from None
    return JSONResponse(SessionAnswer(data=service.open_session(request, signature)).model_dump(by_alias=True))


@router.get("/simulated/{session_id}")
def take_session(service: Service, session_id: str, signature: Signature) -> Session:
    """A simulated session, once, for the worker that has signed keccak(session id)."""
    return service.take_session(session_id, signature)


def _written(found: FrameworkProperties) -> JSONResponse:
    """A framework's properties as JSON in the names that workers read."""
    return JSONResponse(found.model_dump(by_alias=True, exclude_none=True))
