"""Limits by chain where the operator sets none."""

from __future__ import annotations

from decimal import Decimal

import pytest

from chain.lane.rules.fees import GWEI
from config.settings import read_settings
from protocol.types import NRlc, Wei
from tests.unit.workers.money.test_money_limits import CHAINS
from workers.money import limits
from workers.money.limits import Budget, Caps, why_not


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_has_limits_that_allow_a_task_at_the_highest_price(chain: int) -> None:
    own = read_settings(chain_id=chain)
    caps = limits.caps_of(own)
    empty = Budget(Wei(0), Wei(0), NRlc(0), None, caps.price)
    assert why_not(empty, caps, limits.task_gas(solo=True, surcharge={}), NRlc(10**9)) is None
    assert caps.price <= 100 * GWEI


def test_what_the_operator_sets_takes_precedence_over_the_chains_limits() -> None:
    own = read_settings(chain_id=42161, max_fee_gwei=Decimal("0.5"), daily_spend_cap_wei=7, most_stake_nrlc=3)
    assert limits.caps_of(own) == Caps(Wei(GWEI // 2), Wei(7), NRlc(3))
