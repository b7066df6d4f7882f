"""The Celery chains for worker machines: what is in them and where each link goes."""

from __future__ import annotations

from celery import Celery, Signature

from config.celery_apps import pool_app
from config.settings import Settings
from pipeline.broker import segments
from pipeline.broker.segments import Segment
from protocol.types import TaskId, Wallet
from protocol.wire import Assignment, Mode
from tests.unit.pipeline.builders import DEAL, NO_TAG, POOL, TASK, wallet

WORKER = wallet(7)


def app() -> Celery:
    return pool_app(Settings())


def assignment(mode: Mode) -> Assignment:
    return Assignment(
        task_id=TASK,
        deal_id=DEAL,
        index=0,
        mode=mode,
        trust=1,
        tag=NO_TAG,
        wallet=WORKER,
        app=POOL,
        image="hello:1",
        image_checksum=NO_TAG,
        dataset=None,
        params="",
        callback=wallet(0),
        bot_first=0,
        bot_size=1,
        category_seconds=10,
        contribution_deadline=1070,
        final_deadline=1100,
        authorization="0x" + "11" * 65,
        enclave_challenge=wallet(0),
    )


def links(segment: Segment) -> list[tuple[str, str]]:
    """(task, queue) of each link; every one must name the worker's own exchange."""
    assert all(link.options["exchange"] == f"w.{WORKER}" for link in segment.links)
    return [(name_of(link), link.options["routing_key"].removeprefix(f"w.{WORKER}")) for link in segment.links]


def name_of(link: Signature[object]) -> str:
    return str(link["task"])


def test_a_vote_is_computed_on_one_queue_and_sent_from_the_other() -> None:
    segment = segments.compute(app(), assignment(Mode.VOTE))
    assert links(segment) == [("worker.compute", ""), ("worker.contribute", ".tx")]


def test_alone_the_result_is_uploaded_before_it_is_finalized() -> None:
    segment = segments.compute(app(), assignment(Mode.SOLO))
    assert links(segment) == [
        ("worker.compute", ""),
        ("worker.upload", ""),
        ("worker.contribute_and_finalize", ".tx"),
    ]


def test_the_uploader_reveals_and_uploads_right_behind() -> None:
    assert links(segments.reveal(app(), WORKER, TASK, upload=True)) == [("worker.reveal", ".tx"), ("worker.upload", "")]
    assert links(segments.reveal(app(), WORKER, TASK, upload=False)) == [("worker.reveal", ".tx")]


def test_an_abort_does_not_queue_behind_what_it_shall_stop() -> None:
    assert links(segments.abort(app(), WORKER, TASK)) == [("worker.abort", ".tx")]


def test_the_first_link_carries_the_whole_assignment_and_the_others_nothing() -> None:
    first, *rest = segments.compute(app(), assignment(Mode.VOTE)).links
    assert Assignment(**first.args[0]) == assignment(Mode.VOTE)
    assert all(not link.args for link in rest)
    assert TaskId(first.args[0]["task_id"]) == TASK
    assert Wallet(first.args[0]["wallet"]) == WORKER
