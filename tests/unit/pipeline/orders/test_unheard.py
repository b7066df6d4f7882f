"""Which machines the offers count on after a time in which none could be heard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.domain.condition.hearing import Hearing
from pipeline.domain.orders.offers import Supply
from pipeline.flow.orders import keep
from protocol.errors import RpcUnavailable
from protocol.types import Contract
from tests.unit.pipeline.builders import START, wallet, worker

SILENCE = 60.0
HEARD, QUIET = worker(1), worker(2, seen_at=START - SILENCE - 1)


def supply(hearing: Hearing, *, clock_agrees: bool = True) -> Supply:
    def away(_: Contract) -> Any:
        raise RpcUnavailable(what="the node", why="away")

    store: Any = SimpleNamespace(
        deals=SimpleNamespace(deals_to_ingest=lambda _: []),
        tasks=SimpleNamespace(any_undecided=lambda _: False, tasks_wanting_workers=lambda *_: []),
        hold=SimpleNamespace(state=lambda: None, has_held=lambda _: False),
        pause=SimpleNamespace(state=lambda: None),
        census=SimpleNamespace(able=lambda seen, *_: [item for item in (HEARD, QUIET) if item.seen_at >= seen]),
        sweeps=SimpleNamespace(hearing=lambda: hearing),
        workers=SimpleNamespace(any_proven=lambda _: True),
        unserved=SimpleNamespace(tags=lambda *_: []),
    )
    settings: Any = SimpleNamespace(worker_lost_seconds=SILENCE, sweep_seconds=5.0, enclave_sms_url=None)
    hub: Any = SimpleNamespace(workerpool=away)
    found: Supply = keep._supply(settings, store, hub, Contract(wallet(9)), START, clock_agrees=clock_agrees)
    return found


@pytest.mark.parametrize(
    ("hearing", "clock_agrees", "counted"),
    [
        (Hearing(START), True, False),
        (Hearing(START, START - 100, START - 5), True, True),
        (Hearing(START - 300), True, True),
        (Hearing(START), False, True),
    ],
    ids=["heard", "unheard lately", "no sweep ran", "a clock that does not fit the chain's"],
)
def test_machines_that_were_silent_when_none_could_be_heard_keep_what_is_offered_and_get_nothing_new(
    hearing: Hearing, clock_agrees: bool, counted: bool
) -> None:
    found = supply(hearing, clock_agrees=clock_agrees)
    assert found.machines == (HEARD,)
    assert found.silent == ((QUIET,) if counted else ())
