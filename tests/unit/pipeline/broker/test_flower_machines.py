"""What Flower asks of a worker machine is answered here, and what it asks of others goes to them."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.app.control import Control

from pipeline.broker.flower_machines import NOTE, prepare_for_flower

MACHINE = "w.0x" + "ab" * 20
#: What Flower asks of one worker.
METHODS = ("stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked", "conf")


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setattr(Control, "broadcast", lambda *_, **options: [{"asked": options["destination"]}])
    found = Celery(set_as_current=False)
    prepare_for_flower(found)
    return found


def ask(app: Celery, method: str, *destination: str) -> Any:
    return getattr(app.control.inspect(destination=list(destination) or None), method)()


@pytest.mark.parametrize("method", METHODS)
def test_what_flower_asks_of_a_machine_is_answered_without_asking_it(app: Celery, method: str) -> None:
    assert ask(app, method, MACHINE).keys() == {MACHINE}


def test_the_answer_tells_why_there_is_so_little_and_which_queues_the_machine_has(app: Celery) -> None:
    assert ask(app, "stats", MACHINE)[MACHINE]["pool"]["implementation"] == NOTE
    assert [queue["name"] for queue in ask(app, "active_queues", MACHINE)[MACHINE]] == [MACHINE, f"{MACHINE}.tx"]


@pytest.mark.parametrize("destination", [(), ("pipeline@host",), (MACHINE, "pipeline@host"), (MACHINE + "0",)])
def test_others_are_asked_themselves(app: Celery, destination: tuple[str, ...]) -> None:
    assert ask(app, "stats", *destination) == {"asked": list(destination) or None}
