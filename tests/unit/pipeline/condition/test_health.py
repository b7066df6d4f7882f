"""What the pool can do, from facts alone: what is wrong is red whatever else is, and says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.condition.facts import (
    AuditFacts,
    BrokerFacts,
    CertificateFacts,
    DatabaseFacts,
    ExpectedPool,
    Facts,
    IpfsFacts,
    LaneFacts,
    MachineFacts,
    NoAnswer,
    NodeFacts,
)
from pipeline.domain.condition.health import TASK_GAS, HealthPart, parts
from protocol.poco.events import BlockRef
from protocol.types import BlockHash, BlockNumber, Contract, Timestamp, Wallet, Wei

NOW = 1_800_000_000
WALLET, STRANGER = Wallet("0x" + "11" * 20), Wallet("0x" + "22" * 20)
POOL = ExpectedPool(WALLET, Contract("0x" + "33" * 20), block_time=1.0)
PRICE = Wei(2 * 10**9)
NEED = TASK_GAS * PRICE


def block(number: int, timestamp: float) -> BlockRef:
    return BlockRef(BlockNumber(number), BlockHash("0x1"), BlockHash("0x0"), Timestamp(int(timestamp)))


NODE = NodeFacts(BlockNumber(1000), Timestamp(NOW), Wei(NEED), PRICE, WALLET)
WELL = Facts(
    now=NOW,
    database=DatabaseFacts(
        replicated=True,
        clock_ahead=0.0,
        cursor=block(1000, NOW),
        swept_at=NOW - 4.0,
        audit=AuditFacts(NOW - 3600.0, unasked=("IPFS (refused)",)),
    ),
    broker=BrokerFacts("sluice", administrator=True, clock_ahead=0.2),
    ipfs=IpfsFacts("0.42"),
    node=NODE,
    lane=LaneFacts(),
    machines=MachineFacts(able=3),
    watched=100.0,
    head_still=0.5,
    head_pace=1.0,
)


def red(facts: Facts, pool: ExpectedPool = POOL) -> dict[str, HealthPart]:
    return {name: part for name, part in parts(facts, pool).items() if not part.ok}


def with_node(**changes: Any) -> Facts:
    return replace(WELL, node=replace(NODE, **changes))


def test_a_pool_that_can_work_is_green_in_every_part() -> None:
    assert red(WELL) == {}
    assert set(parts(WELL, POOL)) == {
        *(
            "mongodb",
            "rabbitmq",
            "ipfs",
            "chain",
            "clock",
            "ownership",
            "gas",
            "watcher",
            "pipeline",
            "audit",
            "lane",
            "workers",
        ),
    }


#: Each thing that can be wrong alone: what turns red, and a word of what is said.
WRONG: dict[str, tuple[Facts, str, str]] = {
    "no gas": (with_node(balance=Wei(4096)), "gas", "holds 4096 wei"),
    "one wei short": (with_node(balance=Wei(NEED - 1)), "gas", f"{TASK_GAS} gas"),
    "not the owner": (with_node(owner=STRANGER), "ownership", STRANGER),
    "IPFS away": (replace(WELL, ipfs=NoAnswer("IPFS at x does not answer: refused", "Start kubo.")), "ipfs", "refused"),
    "database away": (replace(WELL, database=NoAnswer("MongoDB does not answer", "Start it.")), "mongodb", "MongoDB"),
    "no replica set": (
        replace(WELL, database=DatabaseFacts(replicated=False, clock_ahead=0, cursor=block(1000, NOW))),
        "mongodb",
        "not a replica set",
    ),
    "broker user without rights": (
        replace(WELL, broker=BrokerFacts("app", administrator=False)),
        "rabbitmq",
        "app is not tagged administrator",
    ),
    "broker alarm": (replace(WELL, broker=BrokerFacts("app", True, alarms=("memory",))), "rabbitmq", "memory"),
    "queue that nobody reads": (
        replace(WELL, broker=BrokerFacts("app", True, unread=("lane.x",))),
        "rabbitmq",
        "lane.x",
    ),
    "node away": (replace(WELL, node=NoAnswer("no node answers", "Start one.")), "chain", "no node"),
    "nobody enrolled": (replace(WELL, machines=MachineFacts(0)), "workers", "no machine has signed in"),
    "nobody funded": (replace(WELL, machines=MachineFacts(0, 3, unfunded=3)), "workers", "3 without gas"),
    "all cooling down": (replace(WELL, machines=MachineFacts(0, 2, cooling=2)), "workers", "2 cooling down"),
    "all silent": (replace(WELL, machines=MachineFacts(0, 2, silent=2)), "workers", "2 silent"),
    "lane halted": (replace(WELL, lane=LaneFacts(halted="Nonce 7 is foreign.")), "lane", "Nonce 7 is foreign"),
    "lane cannot go on": (
        replace(WELL, lane=LaneFacts(stuck="nonce 3 is spent, but it cannot be told by what")),
        "lane",
        "nonce 3 is spent",
    ),
    "lane waits": (replace(WELL, lane=LaneFacts(None, 61.0, "nonce 3 offers too little")), "lane", "nonce 3 offers"),
    "certificate that has ended": (
        replace(WELL, certificates=(CertificateFacts("a:443", 0.0, NOW + 9.0), CertificateFacts("b:5671", 0.0, NOW))),
        "certificates",
        "the certificate of b:5671 has ended",
    ),
    "lane waits for a process": (
        replace(WELL, lane=LaneFacts(None, 61.0, "nothing", run_by="pid 9 on there")),
        "lane",
        "waited for 61 s (the last was pid 9 on there)",
    ),
    "watcher stands still": (
        replace(WELL, database=DatabaseFacts(True, 0, block(951, NOW - 49))),
        "watcher",
        "49 blocks behind",
    ),
    "pipeline hangs": (
        replace(WELL, database=DatabaseFacts(True, 0, block(1000, NOW), NOW - 61, "pid 12 on here")),
        "pipeline",
        "swept the tasks for 61 s (the last was pid 12 on here)",
    ),
    "an audit found something": (
        replace(WELL, database=DatabaseFacts(True, 0, block(1000, NOW), audit=AuditFacts(NOW, 2, "stake 0x: says"))),
        "audit",
        "2 differences found 0 min ago; the first: stake 0x: says",
    ),
    "nothing read": (replace(WELL, database=DatabaseFacts(True, 0, None)), "watcher", "no block read yet"),
    "chain stands still": (
        replace(
            with_node(timestamp=Timestamp(NOW - 90)), head_still=90.0, database=DatabaseFacts(True, 0, block(1000, NOW))
        ),
        "chain",
        "stands still",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_the_only_red_part_and_says_what_to_do(name: str) -> None:
    facts, part, word = WRONG[name]
    found = red(facts)
    assert list(found) == [part]
    assert word in found[part].detail
    assert found[part].fix


@given(st.sets(st.sampled_from(sorted(WRONG)), min_size=1))
def test_however_much_is_wrong_at_once_the_pool_is_red_and_every_red_part_says_what_to_do(names: set[str]) -> None:
    facts = WELL
    for name in sorted(names):
        changes = WRONG[name][0]
        differing = {
            key: getattr(changes, key) for key in Facts.__slots__ if getattr(changes, key) != getattr(WELL, key)
        }
        facts = replace(facts, **differing)
    found = red(facts)
    assert found
    assert all(part.detail and part.fix for part in found.values())


@given(st.integers(16, 10**6), st.sampled_from([1.0, 0.25, 12.0]))
def test_a_head_from_the_future_tells_of_the_clock_and_never_of_the_chain(seconds: int, block_time: float) -> None:
    facts = replace(WELL, node=replace(NODE, timestamp=Timestamp(NOW + seconds)), head_still=None, head_pace=None)
    assert list(red(facts, replace(POOL, block_time=block_time))) == ["clock"]
    assert f"{seconds} s behind" in red(facts)["clock"].detail


@given(st.integers(200, 10**6), st.floats(0, 12), st.booleans())
def test_blocks_that_keep_coming_distinguish_a_clock_ahead_from_a_halted_chain(
    seconds: int, still: float, others_agree: bool
) -> None:
    ahead = -float(seconds) if others_agree else 0.0
    facts = replace(
        with_node(timestamp=Timestamp(NOW - seconds)),
        head_still=still,
        database=DatabaseFacts(True, ahead, block(1000, NOW - seconds)),
    )
    assert list(red(facts)) == ["clock"]
    assert f"{seconds} s ahead" in red(facts)["clock"].detail


@given(st.integers(200, 10**6))
def test_at_the_first_look_other_servers_clocks_tell(seconds: int) -> None:
    first = replace(with_node(timestamp=Timestamp(NOW - seconds)), head_still=None, head_pace=None)
    disagreeing = replace(first, database=DatabaseFacts(True, -float(seconds), block(1000, NOW - seconds)))
    assert list(red(disagreeing)) == ["clock"]
    assert "MongoDB" in red(disagreeing)["clock"].detail
    agreeing = replace(first, database=DatabaseFacts(True, 0.1, block(1000, NOW - seconds)))
    assert list(red(agreeing)) == ["chain"]


def test_with_one_sign_only_both_are_named() -> None:
    alone = Facts(now=NOW, node=replace(NODE, timestamp=Timestamp(NOW - 2501)))
    assert "or this machine's clock" in red(alone)["chain"].detail


def test_where_no_other_clock_tells_that_the_nodes_may_all_be_behind_is_said_too() -> None:
    lagging = replace(with_node(timestamp=Timestamp(NOW - 50)), head_still=1.0)
    assert "or every node is that far behind" in red(lagging)["clock"].detail
    assert "another node" in red(lagging)["clock"].fix


def test_a_node_that_reads_old_blocks_is_no_clock_that_is_off() -> None:
    facts = replace(with_node(timestamp=Timestamp(NOW - 5000)), head_still=1.0, head_pace=400.0)
    assert "still reading older blocks" in red(facts)["chain"].detail
    assert parts(facts, POOL)["clock"].ok


@given(st.integers(0, 10**5), st.integers(0, 10**6))
def test_the_watcher_is_behind_only_by_blocks_and_by_time(blocks: int, seconds: int) -> None:
    facts = replace(WELL, database=DatabaseFacts(True, 0, block(1000 - blocks, NOW - seconds)))
    assert ("watcher" in red(facts)) == (blocks >= 10 and seconds >= 30)


@given(st.integers(0, 10**30), st.integers(0, 10**12), st.integers(0, 10**20))
def test_gas_is_red_exactly_while_a_task_cannot_be_paid(balance: int, price: int, kept: int) -> None:
    facts = with_node(balance=Wei(balance), max_fee=Wei(price))
    assert ("gas" in red(facts, replace(POOL, keep_balance=kept))) == (balance < TASK_GAS * price + kept)


def test_what_cannot_be_known_is_left_out_rather_than_guessed() -> None:
    away = NoAnswer("away", "start it")
    found = parts(replace(WELL, node=away, lane=None, machines=None), POOL)
    assert not {"gas", "ownership", "clock", "watcher", "lane", "workers"} & set(found)
    assert not found["chain"].ok


def test_sweeps_are_missed_only_where_they_are_due_and_the_scheduler_has_run_for_a_while() -> None:
    def swept(seconds_ago: float, **changes: Any) -> Facts:
        database = DatabaseFacts(True, 0, block(1000, NOW), NOW - seconds_ago)
        return replace(WELL, database=database, **changes)

    assert "pipeline" not in red(swept(59.0))
    assert "pipeline" in red(swept(61.0))
    seldom = replace(POOL, sweep_seconds=120.0)
    assert "pipeline" not in red(swept(719.0), seldom)
    assert "pipeline" in red(swept(721.0), seldom)
    # A doctor beside a scheduler that does not run, or has just been started, cannot know.
    assert "pipeline" not in parts(swept(10_000.0, watched=0.0), POOL)
