"""The pool begins nothing new while something that work needs is away for longer than a restart takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.condition.facts import DatabaseFacts, Facts, MachineFacts, NoAnswer, ResultFacts
from pipeline.domain.condition.health import FAR_BEHIND_SECONDS, REFUSED_SECONDS, HealthPart, parts
from pipeline.domain.condition.holding import HOLD_SECONDS, holding
from protocol.types import Timestamp, Wei
from tests.unit.pipeline.condition.test_health import NOW, POOL, WELL, block, with_node

#: Each outage, and the part that is named for it.
OUTAGES: dict[str, tuple[Facts, str]] = {
    "node away": (replace(WELL, node=NoAnswer("no node answers", "Start one.")), "chain"),
    "chain stands still": (replace(with_node(timestamp=Timestamp(NOW - 90)), head_still=90.0), "chain"),
    # Nothing here tells it from a clock that is ahead: both are said.
    "all nodes lag 50 blocks": (replace(with_node(timestamp=Timestamp(NOW - 50)), head_still=1.0), "clock"),
    "this clock is an hour ahead": (replace(with_node(timestamp=Timestamp(NOW - 3600)), head_still=0.5), "clock"),
    "this clock is an hour behind": (with_node(timestamp=Timestamp(NOW + 3600)), "clock"),
    "database away or read-only": (replace(WELL, database=NoAnswer("MongoDB refuses: not primary", "")), "mongodb"),
    "broker away": (replace(WELL, broker=NoAnswer("refused", "Start it.", may_recover=True)), "rabbitmq"),
    "broker's disk full": (replace(WELL, broker=replace(WELL.broker, alarms=("disk",))), "rabbitmq"),  # type: ignore[type-var]
    "IPFS away": (replace(WELL, ipfs=NoAnswer("refused", "Start it.")), "ipfs"),
    "disk of IPFS or of the API full": (replace(WELL, results=ResultFacts(3.0, "no space left on device")), "results"),
    "what is stored is an hour old": (
        replace(WELL, database=DatabaseFacts(True, 0, block(1, NOW - 3600), NOW - 1.0)),
        "watcher",
    ),
}
#: What is red, and no reason to leave tasks lying: it says so, and work goes on as far as it can.
NO_OUTAGE = {
    "no gas": with_node(balance=Wei(0)),
    "no machine": replace(WELL, machines=MachineFacts(0)),
    "a single MongoDB": replace(WELL, database=DatabaseFacts(False, 0, block(1000, NOW))),
    "only the management of RabbitMQ is away": replace(
        WELL, broker=NoAnswer("refused", "Start it.", may_recover=True, serves=True)
    ),
    "the watcher is a minute behind": replace(WELL, database=DatabaseFacts(True, 0, block(900, NOW - 60), NOW - 1.0)),
    "a queue that nobody reads": replace(WELL, broker=replace(WELL.broker, unread=("pipeline",))),  # type: ignore[type-var]
}


def held(facts: Facts, *, lasts: float = HOLD_SECONDS, already: bool = False) -> str | None:
    """The reason to hold where every part that is red has been so for `lasts` seconds."""
    found = parts(facts, POOL)
    return holding(found, {name: NOW - lasts for name, part in found.items() if not part.ok}, NOW, held=already)


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_that_lasts_holds_the_pool_and_a_short_one_does_not(name: str) -> None:
    facts, part = OUTAGES[name]
    assert (held(facts) or "").startswith(f"{part}: ")
    assert held(facts, lasts=HOLD_SECONDS - 1) is None


@pytest.mark.parametrize("name", NO_OUTAGE)
def test_what_is_no_outage_holds_nothing(name: str) -> None:
    found = parts(NO_OUTAGE[name], POOL)
    assert not all(part.ok for part in found.values())
    assert held(NO_OUTAGE[name], lasts=3600.0) is None


@pytest.mark.parametrize("name", OUTAGES)
def test_a_pool_that_holds_goes_on_holding_when_one_trouble_turns_into_another(name: str) -> None:
    """Nodes that stop and then lag are a chain that stands still at first, and a clock that is ahead later."""
    assert (held(OUTAGES[name][0], lasts=0.0, already=True) or "").startswith(f"{OUTAGES[name][1]}: ")


def test_a_pool_that_is_well_does_not_hold() -> None:
    assert held(WELL) is None
    assert held(WELL, already=True) is None


def test_a_result_that_was_refused_long_ago_says_nothing_of_now() -> None:
    assert held(replace(WELL, results=ResultFacts(REFUSED_SECONDS, "full"))) is None


@given(st.integers(0, 10**5))
def test_the_pool_waits_for_a_watcher_that_is_far_behind_and_for_no_other(seconds: int) -> None:
    facts = replace(WELL, database=DatabaseFacts(True, 0, block(0, NOW - seconds), NOW - 1.0))
    assert (held(facts) is not None) == (seconds >= FAR_BEHIND_SECONDS)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.tuples(st.booleans(), st.booleans(), st.floats(0, 100))))
def test_of_several_reasons_the_one_that_lasts_longest_is_named(found: dict[str, tuple[bool, bool, float]]) -> None:
    shown = {name: HealthPart(ok, name, needed_to_begin=needed) for name, (ok, needed, _) in found.items()}
    since = {name: 100.0 - lasts for name, (_, _, lasts) in found.items()}
    lasting = [
        (-lasts, name) for name, (ok, needed, lasts) in found.items() if not ok and needed and lasts >= HOLD_SECONDS
    ]
    why = holding(shown, since, 100.0)
    if not lasting:
        assert why is None
    else:
        longest = max(-it[0] for it in lasting)
        assert why in {f"{name}: {name}" for gone, name in lasting if -gone >= longest - 1e-9}
