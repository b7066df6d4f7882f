"""Chooses what is done before and after a replicate's app on this machine."""

from __future__ import annotations

from chain.contracts.hub import Hub
from chain.rpc.answers import Known
from protocol.errors import RpcUnavailable, TaskDeclined
from protocol.poco.tags import needs_enclave_signature
from protocol.results.error_result import NO_ENCLAVE
from protocol.types import Contract, Hash32
from workers.context import WorkerContext
from workers.enclave.port import Enclave, Host, NoEnclave, Work


def enter(context: WorkerContext, work: Work) -> Enclave:
    """The `Enclave` of a replicate: `NoEnclave` for a standard task, else one with a session. Raises TaskDeclined."""
    if not needs_enclave_signature(Hash32(work.assignment.tag)):
        return NoEnclave(work)
    framework = context.machine.framework
    if framework is None:
        raise TaskDeclined(task=work.task_id, cause=NO_ENCLAVE, why="this machine runs no enclaves (SLUICE_ENCLAVE)")
    machine = context.machine
    return framework.enter(
        work,
        Host(
            engine=context.engine,
            images=machine.images,
            limits=machine.limits,
            worker_name=machine.settings.worker_name,
            workerpool=machine.pool.workerpool,
            app_enclave=lambda: _app_enclave(context, Contract(work.assignment.app)),
        ),
    )


def _app_enclave(context: WorkerContext, app: Contract) -> bytes:
    """What the chain has of an app's enclave. Raises RpcUnavailable."""
    answer = Hub(context.rpc, Contract(context.machine.pool.hub)).app(app)
    if isinstance(answer, Known):
        return answer.value.enclave
    raise RpcUnavailable(what=context.rpc.name, why=f"it does not tell the app {app}: {answer.why}")
