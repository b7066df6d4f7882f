"""Addresses, rate limits and connections of our HTTP servers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.http_server import rates as rate_limits
from config.http_server.address import UNKNOWN, origin_of
from config.http_server.connections import Connections, proxies_of
from config.http_server.rates import Counters, RateLimits, parsed
from config.settings import read_settings
from protocol.errors import BadSetting, TooManyRequests
from workers.care.upkeep import PING_TASKS


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        (None, UNKNOWN),
        ("x" * 100, UNKNOWN),
    ],
)
def test_an_address_counts_as_its_owner_has_it(host: str | None, origin: str) -> None:
    assert origin_of(host) == origin


@given(st.text(max_size=60))
def test_any_host_at_all_has_an_origin(host: str) -> None:
    assert origin_of(host)


@pytest.mark.parametrize("text", ["", "often", "0/minute", "-1/minute", "5/fortnight", "5"])
def test_a_rate_that_is_none_is_refused_with_the_settings_name(text: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_RATE_PING"):
        parsed("SLUICE_RATE_PING", text)


def test_beyond_the_limit_the_answer_says_when_to_ask_again_and_other_wallets_are_not_concerned() -> None:
    rates = RateLimits.of(read_settings(rate_ping="3/minute"))
    for _ in range(3):
        rates.count("ping", "a")
    with pytest.raises(TooManyRequests) as refused:
        rates.count("ping", "a")
    assert 1 <= int(str(refused.value.fields["seconds"])) <= 61
    rates.count("ping", "b")


def test_a_machine_with_64_slots_that_pings_each_second_never_meets_a_limit() -> None:
    rates = RateLimits.of(read_settings())
    for _ in range(60):
        rates.count_ping("a", 64)
    for _ in range(64 * 60):
        rates.count("upload", "a")
    for _ in range(10):
        rates.count("sign_in_wallet", "a")


def test_pings_that_have_a_thousand_tasks_looked_up_are_few_and_still_more_than_a_machine_sends() -> None:
    rates = RateLimits.of(read_settings())
    for _ in range(int(60 / read_settings().ping_seconds) + 1):
        rates.count_ping("full", PING_TASKS)
    for _ in range(9):
        rates.count_ping("flood", PING_TASKS)
    with pytest.raises(TooManyRequests):
        rates.count_ping("flood", PING_TASKS)


def test_a_ping_is_answered_whatever_it_names_where_the_operator_allows_few() -> None:
    rates = RateLimits.of(read_settings(rate_ping="20/minute"))
    rates.count_ping("full", PING_TASKS)
    with pytest.raises(TooManyRequests):
        rates.count_ping("full", PING_TASKS)


def test_counts_of_past_windows_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("config.http_server.rates.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(rate_limits, "SWEEP_KEYS", 10)
    counters = Counters()
    for number in range(10):
        counters.incr(f"{number}", 60)
    now = 161.0
    counters.incr("new", 60)
    assert (len(counters._counts), counters.get("new"), counters.get("1")) == (1, 1, 0)


def test_connections_are_limited_per_address_and_in_all_and_given_back() -> None:
    places = Connections(5, 2, lambda host: host == "127.0.0.1")
    assert [places.enter("203.0.113.9") for _ in range(3)] == ["203.0.113.9", "203.0.113.9", None]
    assert [places.enter("127.0.0.1") for _ in range(4)] == ["127.0.0.1"] * 3 + [None]
    places.leave("203.0.113.9")
    assert places.enter("203.0.113.9") == "203.0.113.9"


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadSetting, match="SLUICE_TRUSTED_PROXIES"):
        proxies_of(read_settings(trusted_proxies="nginx"))
