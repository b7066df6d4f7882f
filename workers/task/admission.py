"""Whether a task that was assigned is done at all: whether it is ours, can be paid, and fits this machine's limits.

Asked before anything is spent on it.
"""

from __future__ import annotations

from protocol.errors import Refused, TaskDeclined
from protocol.poco.authorization import recover_authorization
from protocol.poco.tags import fits, needs_gpu
from protocol.results.error_result import CONTRIBUTION_TIMEOUT, MACHINE_FAILED, NO_ENCLAVE, NOT_AUTHORIZED
from protocol.types import Hash32, Signature, Wallet
from workers.context import WorkerContext
from workers.fitness import clock
from workers.task.replicate import Replicate, ReplicateStage


def require(context: WorkerContext, replicate: Replicate) -> None:
    """Raise TaskDeclined unless this machine may do the task.

    Raises RpcUnavailable if the node cannot say what a vote on it would lock.
    """
    refused = _why_not(context, replicate)
    if refused is not None:
        cause, why = refused
        raise TaskDeclined(task=replicate.task_id, cause=cause, why=why)


def _why_not(context: WorkerContext, replicate: Replicate) -> tuple[str, str] | None:
    """Cause and reason for not doing the task; None if the machine does it."""
    assignment, machine, wallet = replicate.assignment, context.machine, context.machine.wallet
    if assignment.wallet != wallet:
        return NOT_AUTHORIZED, f"it is for wallet {assignment.wallet}"
    if context.now() >= assignment.contribution_deadline:
        off = clock.why_late(context.rpc, machine.api, context.now(), machine.settings.block_time)
        if off is not None:
            return MACHINE_FAILED, off
        return CONTRIBUTION_TIMEOUT, "its contribution deadline has passed"
    enclave = Wallet(assignment.enclave_challenge)
    try:
        signer = recover_authorization(Signature(assignment.authorization), wallet, replicate.task_id, enclave)
    except Refused as error:
        return NOT_AUTHORIZED, str(error)
    if signer != machine.pool.scheduler:
        return NOT_AUTHORIZED, f"it is authorized by {signer}"
    if needs_gpu(Hash32(assignment.tag)) and not machine.gpus:
        return MACHINE_FAILED, "it asks for a GPU, and this machine offers none (SLUICE_GPUS)"
    if replicate.in_enclave and not fits(Hash32(assignment.tag), machine.tag):
        return NO_ENCLAVE, "it asks for a kind of enclave that this machine does not run (SLUICE_ENCLAVE)"
    if replicate.stage is not ReplicateStage.TAKEN:
        # A container that runs already was allowed when it was begun.
        return None
    unable = _why_unable(context) or context.ledger.why_not(assignment)
    return None if unable is None else (MACHINE_FAILED, unable)


def _why_unable(context: WorkerContext) -> str | None:
    """What keeps this machine from any task now, by its last checkup, in words."""
    if (unconfined := context.layout.why_unconfined()) is not None:
        return f"apps cannot be kept off this machine's network now: {unconfined}"
    unfit = context.layout.why_unfit()
    return None if unfit is None else f"this machine is not fit to work: {unfit}"
