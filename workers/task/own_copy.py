"""Stores a result that the pool does not take in time, at the machine's own IPFS node: a trust-1 task needs no pool.

    the pool takes the result                        its link
    it is away, or cannot store it: time is left     asked again
    LAST_SECONDS are left                            the machine's own IPFS node has it: contributeAndFinalize needs a
                                                     link and nobody else

The pin's name says when: the node keeps it as long as a pool keeps a result (SLUICE_KEEP_RESULTS_DAYS), then the
process upkeep unpins it.

A task with votes is finalized by the pool, which checks the result against the vote: no link of a machine stands there.
"""

from __future__ import annotations

from contextlib import closing

import structlog

from config.connections.ipfs import Ipfs
from protocol.errors import StorageUnavailable
from protocol.types import ZERO_ADDRESS
from protocol.wire import ResultLink
from workers.context import WorkerContext
from workers.task.replicate import Replicate

log = structlog.get_logger(__name__)

#: Seconds before the contribution deadline: enough for an upload that fails in the middle, and for a transaction that
#: is mined late.
LAST_SECONDS = 300.0
#: Prefix of the name of a copy's pin, followed by task and Unix seconds.
_PIN = "sluice-result-"
#: Seconds.
_DAY = 86400


def is_due(context: WorkerContext, replicate: Replicate) -> bool:
    """Whether the result goes to the machine's own node if the pool does not take it now."""
    left = replicate.assignment.contribution_deadline - context.now()
    if not replicate.solo or not 0 < left <= LAST_SECONDS:
        return False
    return _for_contract(replicate) or context.machine.settings.worker_ipfs_api is not None


def keep(context: WorkerContext, replicate: Replicate) -> ResultLink | None:
    """Put the result into the machine's own node, pinned, and return its link; None if that does not take it either.

    What a callback contract is given needs no node: it is part of the transaction.
    """
    if _for_contract(replicate):
        return ResultLink(storage="ethereum", location=replicate.assignment.callback)
    with closing(Ipfs(str(context.machine.settings.worker_ipfs_api))) as node:
        try:
            cid = node.add(context.layout.task(replicate.task_id).zip, f"iexec-result-{replicate.task_id}")
        except StorageUnavailable as error:
            why = "This machine's own IPFS node does not take the result either."
            log.warning(why, action="own_copy_failed", task=replicate.task_id, why=str(error))
            return None
        try:
            node.pin(cid, f"{_PIN}{replicate.task_id}-{int(context.now())}")
        except StorageUnavailable as error:
            # The node still has it, and the task may still be paid for it.
            words = "The copy's pin got no name, so nothing unpins it."
            log.warning(words, action="own_copy_unnamed", task=replicate.task_id, cid=cid, why=str(error))
    log.warning(
        "The pool does not take the result, so this machine's own IPFS node has it.",
        action="own_copy",
        task=replicate.task_id,
        location=f"/ipfs/{cid}",
    )
    return ResultLink(storage="ipfs", location=f"/ipfs/{cid}")


def unpin_old(api: str, days: float, now: float) -> int:
    """Unpin copies that are older than `days`; returns how many. `now`: Unix seconds. Raises StorageUnavailable."""
    with closing(Ipfs(api)) as node:
        old = [cid for cid, name in node.pins(_PIN).items() if (at := _pinned_at(name)) and now > at + days * _DAY]
        for cid in old:
            node.unpin(cid)
    return len(old)


def _pinned_at(name: str) -> int | None:
    """Unix seconds in the name of a pin of ours, None in any other."""
    at = name.removeprefix(_PIN).partition("-")[2]
    return int(at) if name.startswith(_PIN) and at.isdecimal() else None


def _for_contract(replicate: Replicate) -> bool:
    """Whether the result also goes to a callback contract."""
    return replicate.assignment.callback != ZERO_ADDRESS and replicate.callback_data is not None
