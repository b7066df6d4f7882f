"""How machines' users are named at a broker that serves one pool, or several."""

from __future__ import annotations

import pytest

from pipeline.broker.users import machine_user, wallet_of_user
from protocol.types import Wallet

WALLET = Wallet("0x" + "ab" * 20)


@pytest.mark.parametrize("pool", ["pool", "pool-2", "/", "a b-c"])
def test_a_machine_is_known_by_its_user(pool: str) -> None:
    assert wallet_of_user(pool, machine_user(pool, WALLET)) == WALLET


def test_a_machine_has_a_user_of_its_own_in_each_pool_of_a_broker() -> None:
    assert len({machine_user(pool, WALLET) for pool in ("pool", "pool-2", "2", "other")}) == 4
    assert machine_user("pool", WALLET) == WALLET


@pytest.mark.parametrize(
    ("pool", "user"),
    [
        ("pool", f"{WALLET}-pool"),
        ("pool", "monitor"),
        ("pool-2", WALLET),
        ("pool-2", f"{WALLET}-pool"),
        ("pool-2", f"{WALLET}-pool-3"),
        ("2", f"{WALLET}-pool-2"),
        ("pool-2", "monitor-pool-2"),
    ],
)
def test_another_pools_machine_or_an_operators_user_is_no_machine(pool: str, user: str) -> None:
    assert wallet_of_user(pool, user) is None
