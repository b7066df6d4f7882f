"""Verdicts on a machine, from figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import amounts
from protocol.gas import gas_for_task
from protocol.types import NRlc, Wei
from workers.fitness import rules
from workers.fitness.rules import CLOCK_SECONDS, LEAST_DISK, clock_error, head_limit

AMOUNTS = st.integers(0, 10**24)
NOW = 1_800_000_000.0


@given(balance=AMOUNTS, price=st.integers(1, 10**13))
def test_a_wallet_with_too_little_gas_for_a_task_is_bad_and_both_figures_are_shown(balance: int, price: int) -> None:
    found = rules.gas(Wei(balance), price)
    assert found.ok == (balance >= gas_for_task(price))
    assert (found.numbers["has_wei"], found.numbers["needs_wei"]) == (balance, gas_for_task(price))
    assert amounts.ether(balance) in found.says


@given(free=AMOUNTS, locked=AMOUNTS, least=st.none() | AMOUNTS)
def test_a_wallet_without_the_stake_of_what_the_pool_sells_is_bad(free: int, locked: int, least: int | None) -> None:
    found = rules.stake(NRlc(free), NRlc(locked), None if least is None else NRlc(least))
    # What is locked now comes back: a machine at work is not unfit.
    assert found.ok == (least is None or free + locked >= least)
    assert found.numbers["needs_nrlc"] == least


def test_a_wallet_without_stake_is_shown_what_that_excludes_though_no_deal_is_known() -> None:
    found = rules.stake(NRlc(0), NRlc(0), None)
    assert found.ok
    assert "trust 1 only" in found.says


@given(free=st.integers(0, 2**44))
def test_a_full_disk_is_bad_and_the_limit_and_the_fix_are_shown(free: int) -> None:
    found = rules.disk(free, "/home")
    assert found.ok == (free >= LEAST_DISK)
    assert found.ok or ("5.0 GiB are needed" in found.says and "SLUICE_HOME" in found.says)


@pytest.mark.parametrize(
    ("head", "pool", "off"),
    [
        (NOW - 2, NOW, None),
        (NOW - 2, None, None),
        (NOW + 12, NOW, None),
        (NOW + 2500, NOW + 2500, -2500),
        # The pool's clock is as wrong as this one: the block still is from the future.
        (NOW + 2500, NOW, -2500),
        (NOW - 3000, NOW - 3000, 3000),
        # The node is behind, or the chain stands still.
        (NOW - 3000, NOW, None),
        (NOW - 3000, None, None),
    ],
)
def test_a_clock_is_wrong_only_where_that_is_certain(head: float, pool: float | None, off: float | None) -> None:
    assert clock_error(NOW, head, pool, 1.0) == off
    found = rules.clock(NOW, head, pool, 1.0)
    assert found.ok == (off is None and NOW - head <= head_limit(1.0))
    if off is not None:
        assert found.numbers["off_seconds"] == off
        assert f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'}" in found.says


@given(
    error=st.floats(-1e6, 1e6),
    age=st.floats(0, 1e6),
    pool_error=st.floats(-5, 5),
    block_time=st.floats(0.1, 15),
)
def test_whatever_the_node_a_right_clock_is_never_called_wrong_and_a_wrong_one_never_right(
    error: float, age: float, pool_error: float, block_time: float
) -> None:
    """`error`: of this clock; `age`: of the node's head; the pool's clock is right to some seconds."""
    off = clock_error(NOW + error, NOW - age, NOW + pool_error, block_time)
    if abs(error) < CLOCK_SECONDS - 5:
        assert off is None
    if off is not None:
        assert (off > 0) == (error > 0)
    if error > head_limit(block_time) + 5 or error < -(CLOCK_SECONDS + age):
        assert off is not None


@given(amount=AMOUNTS)
def test_amounts_are_shown_exactly(amount: int) -> None:
    for text, digits in ((amounts.rlc(amount), 9), (amounts.ether(amount), 18)):
        whole, _, part = text.partition(".")
        assert int(whole) * 10**digits + int(part.ljust(digits, "0") or 0) == amount
