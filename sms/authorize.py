"""Who may have a task's challenge, and a session: decided purely from what the chain says."""

from __future__ import annotations

from protocol.enclave.session import SessionError, SessionRequest
from protocol.errors import Refused
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import recover_message_wallet
from protocol.poco.authorization import authorization_hash, recover_authorization
from protocol.poco.enclave import challenge_request
from protocol.poco.tags import framework
from protocol.poco.view import TaskStatus
from protocol.types import Hash32, Signature, Wallet
from sms.chain import Execution


def signed_by(wallet: Wallet, message: Hash32, signature: str) -> bool:
    """Whether this is the wallet's EIP-191 signature of a hash; False for what is no signature."""
    try:
        return recover_message_wallet(to_bytes(message), Signature(signature)) == wallet
    except Refused:
        return False


def challenge_refusal(execution: Execution, kind: str, signature: str, now: float) -> SessionError | None:
    """Why the signer of a request does not get the task's challenge; None if it does.

    `kind`: the framework that is served here; `now`: Unix seconds. A task is over once nobody may contribute to it.
    """
    task = _task_refusal(execution, kind, now)
    if task is not None:
        return task
    asked_by_owner = signed_by(execution.deal.workerpool_owner, challenge_request(execution.task_id), signature)
    return None if asked_by_owner else SessionError.INVALID_SIGNATURE


def session_refusal(
    execution: Execution, kind: str, request: SessionRequest, challenge: Wallet | None, now: float
) -> SessionError | None:
    """Why a worker gets no session; None if it does. `kind`: the framework that is served here; `challenge`: the task's
    own; `now`: Unix seconds.

    That the worker itself asks is checked before, by `worker_asks`.
    """
    task = _task_refusal(execution, kind, now)
    if task is not None:
        return task
    try:
        signer = recover_authorization(request.authorization, *request.subject)
    except Refused:
        return SessionError.INVALID_SIGNATURE
    if signer != execution.deal.workerpool_owner:
        return SessionError.INVALID_SIGNATURE
    return None if challenge == request.enclave_challenge else SessionError.NO_CHALLENGE


def worker_asks(request: SessionRequest, signature: str) -> bool:
    """Whether the worker that the authorization names has signed the request."""
    return signed_by(Wallet(request.worker_wallet), authorization_hash(*request.subject), signature)


def _task_refusal(execution: Execution, kind: str, now: float) -> SessionError | None:
    """Why a task may have no session now; None if it may."""
    if framework(execution.deal.tag) != kind:
        return SessionError.NOT_A_TEE_TASK
    place = execution.place
    open_ = place.status is TaskStatus.ACTIVE and now < place.contribution_deadline
    return None if open_ else SessionError.TASK_NOT_ACTIVE
