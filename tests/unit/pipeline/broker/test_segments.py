"""The messages for worker machines: what is in them and where each goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest
from celery import Celery

from config.celery_apps import pool_app
from config.settings import Settings
from pipeline.broker import segments
from pipeline.broker.link import BrokerLink
from pipeline.broker.segments import Segment
from protocol.errors import BrokerUnavailable
from protocol.types import Wallet
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


def sent(segment: Segment) -> tuple[str, str]:
    """(task, queue) of its message, which must name the worker's own exchange."""
    options = segment.message.options
    assert options["exchange"] == f"w.{WORKER}"
    return str(segment.message["task"]), options["routing_key"].removeprefix(f"w.{WORKER}")


@pytest.mark.parametrize("mode", list(Mode))
def test_an_assignment_is_one_message_with_all_of_it(mode: Mode) -> None:
    segment = segments.compute(app(), assignment(mode))
    assert sent(segment) == ("worker.compute", "")
    assert Assignment(**segment.message.args[0]) == assignment(mode)


def test_a_winner_uploads_on_one_queue_and_reveals_on_the_other() -> None:
    assert sent(segments.reveal(app(), WORKER, TASK)) == ("worker.reveal", ".tx")
    assert sent(segments.upload(app(), WORKER, TASK)) == ("worker.upload", "")


def test_an_abort_does_not_queue_behind_what_it_shall_stop() -> None:
    assert sent(segments.abort(app(), WORKER, TASK)) == ("worker.abort", ".tx")


@pytest.mark.parametrize(
    "segment",
    [
        segments.compute(app(), assignment(Mode.VOTE)),
        segments.compute(app(), assignment(Mode.SOLO)),
        segments.reveal(app(), WORKER, TASK),
        segments.upload(app(), WORKER, TASK),
        segments.abort(app(), WORKER, TASK),
    ],
)
def test_no_message_asks_a_worker_to_publish(segment: Segment) -> None:
    """Links, callbacks and chains are published by the worker, which may write to nothing."""
    assert not {"link", "link_error", "chain", "reply_to", "group_id", "chord"} & set(segment.message.options)
    assert not segment.message.get("chord_size")


class Link:
    """A connection that publishes several together as told: an error, or whether each is confirmed, and what came back.

    `published`: machines whose message was published, by one or together.
    """

    def __init__(self, outcome: Exception | tuple[list[bool], set[tuple[str, str]]]) -> None:
        self.outcome = outcome
        self.published: list[str] = []

    @contextmanager
    def producer(self) -> Iterator[str]:
        yield "one"

    @contextmanager
    def together(self) -> Iterator[Link]:
        yield self

    def send(self, messages: Sequence[Callable[[str], object]]) -> tuple[list[bool], set[tuple[str, str]]]:
        for message in messages:
            message("together")
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def close(self) -> None:
        """As a link does."""


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[Link], list[Wallet]], list[tuple[Wallet, str]]]:
    """(publishes one message for each of three machines, all that was published since)."""
    published: list[tuple[Wallet, str]] = []
    pool = app()
    messages = [segments.abort(pool, wallet(number), TASK) for number in (1, 2, 3)]
    monkeypatch.setattr(segments, "_send", lambda segment, how, **_: published.append((segment.wallet, how)))
    return lambda link: segments.publish(cast("BrokerLink", link), messages), published


Three = tuple[Callable[[Link], list[Wallet]], list[tuple[Wallet, str]]]
TOGETHER = [(wallet(number), "together") for number in (1, 2, 3)]


def test_several_messages_are_published_once_and_those_without_a_queue_are_named(three: Three) -> None:
    publish, published = three
    assert publish(Link(([True] * 3, {(f"w.{wallet(2)}", f"w.{wallet(2)}.tx")}))) == [wallet(2)]
    assert published == TOGETHER


def test_what_the_broker_did_not_confirm_is_published_again(three: Three) -> None:
    publish, published = three
    assert publish(Link(([True, False, True], set()))) == []
    assert published == [*TOGETHER, (wallet(2), "one")]


def test_after_an_error_all_are_published_again_one_by_one(three: Three) -> None:
    publish, published = three
    assert publish(Link(BrokerUnavailable(what="it", why="the channel was closed"))) == []
    assert published == [*TOGETHER, *((who, "one") for who, _ in TOGETHER)]


def test_a_silent_broker_is_not_asked_again(three: Three) -> None:
    publish, published = three
    silent = BrokerUnavailable(what="it", why="silent")
    silent.__cause__ = TimeoutError()
    with pytest.raises(BrokerUnavailable):
        publish(Link(silent))
    assert published == TOGETHER
