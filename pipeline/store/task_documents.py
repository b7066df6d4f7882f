"""Task records as MongoDB documents and back; the only place that knows the document's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.records import Replicate, ReplicateState, Sent, Stage, Standing, TaskRecord
from protocol.types import BlockNumber, Contract, DealId, Hash32, NRlc, TaskId, Timestamp, Wallet
from protocol.wire import Mode, ResultLink, Step

Document = dict[str, Any]


def to_document(task: TaskRecord) -> Document:
    """The whole document of a task."""
    return {
        "_id": task.task_id,
        "deal": task.deal_id,
        "index": task.index,
        "requester": task.requester,
        "trust": task.trust,
        "tag": task.tag,
        "category_seconds": task.category_seconds,
        "contribution_deadline": task.contribution_deadline,
        "final_deadline": task.final_deadline,
        # nRLC amounts may pass 2**63 in theory; text keeps every digit
        "worker_stake": str(task.worker_stake),
        "callback": task.callback,
        "matched_block": task.matched_block,
        "matched_at": task.matched_at,
        "stage": str(task.stage),
        "open": task.open,
        "orphaned": task.orphaned,
        "wants": task.wants,
        # products of weights outgrow 64 bits
        "leading": str(task.leading),
        "others": str(task.others),
        "replicates": [replicate_document(item) for item in task.replicates],
        "sent": {method: {"generation": sent.generation, "at": sent.at} for method, sent in task.sent.items()},
        "failed": dict(task.failed),
        "initialized_block": task.initialized_block,
        "consensus_block": task.consensus_block,
        "finalized_block": task.finalized_block,
        "results": task.results,
        "why": task.why,
        "changed_at": task.changed_at,
        "progress": list(task.progress),
        "heard_at": task.heard_at,
        "not_before": task.not_before,
        "next_visit": task.next_visit,
        "version": task.version,
    }


def to_record(row: Mapping[str, Any]) -> TaskRecord:
    """The record of a document."""
    return TaskRecord(
        task_id=TaskId(row["_id"]),
        deal_id=DealId(row["deal"]),
        index=row["index"],
        requester=Wallet(row["requester"]),
        trust=row["trust"],
        tag=Hash32(row["tag"]),
        category_seconds=row["category_seconds"],
        contribution_deadline=Timestamp(row["contribution_deadline"]),
        final_deadline=Timestamp(row["final_deadline"]),
        worker_stake=NRlc(int(row["worker_stake"])),
        callback=Contract(row["callback"]),
        matched_block=BlockNumber(row["matched_block"]),
        matched_at=Timestamp(row["matched_at"]),
        stage=Stage(row["stage"]),
        open=row["open"],
        orphaned=row["orphaned"],
        wants=row["wants"],
        leading=int(row["leading"]),
        others=int(row["others"]),
        replicates=tuple(_replicate(item) for item in row["replicates"]),
        sent={method: Sent(sent["generation"], sent["at"]) for method, sent in row["sent"].items()},
        failed=row["failed"],
        initialized_block=row["initialized_block"],
        consensus_block=row["consensus_block"],
        finalized_block=row["finalized_block"],
        results=row["results"],
        why=row["why"],
        changed_at=row["changed_at"],
        progress=tuple(row["progress"]),
        heard_at=row["heard_at"],
        not_before=row["not_before"],
        next_visit=row["next_visit"],
        version=row["version"],
    )


def replicate_document(replicate: Replicate) -> Document:
    """A replicate as it is embedded in its task."""
    return {
        "wallet": replicate.wallet,
        "mode": str(replicate.mode),
        "weight": replicate.weight,
        "state": str(replicate.state),
        "assigned_at": replicate.assigned_at,
        "published_at": replicate.published_at,
        "resends": replicate.resends,
        "steps": {str(step): at for step, at in replicate.steps.items()},
        "holds_slot": replicate.holds_slot,
        "pledged": replicate.pledged,
        "cause": replicate.cause,
        "exit_code": replicate.exit_code,
        "reveal_asked_at": replicate.reveal_asked_at,
        "upload_asked_at": replicate.upload_asked_at,
        "link": replicate.link.model_dump() if replicate.link else None,
        "digest": replicate.digest,
        "callback_data": replicate.callback_data,
        "standing": int(replicate.standing),
    }


def _replicate(row: Mapping[str, Any]) -> Replicate:
    return Replicate(
        wallet=Wallet(row["wallet"]),
        mode=Mode(row["mode"]),
        weight=row["weight"],
        state=ReplicateState(row["state"]),
        assigned_at=row["assigned_at"],
        published_at=row["published_at"],
        resends=row["resends"],
        steps={Step(step): at for step, at in row["steps"].items()},
        holds_slot=row["holds_slot"],
        pledged=row["pledged"],
        cause=row["cause"],
        exit_code=row["exit_code"],
        reveal_asked_at=row["reveal_asked_at"],
        upload_asked_at=row["upload_asked_at"],
        link=ResultLink(**row["link"]) if row["link"] else None,
        digest=Hash32(row["digest"]) if row["digest"] else None,
        callback_data=row["callback_data"],
        standing=Standing(row.get("standing", Standing.PROVEN)),
    )
