"""How long the pool goes by what it has read of a wallet's token."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pipeline.store.machine.terms import KEPT_SECONDS, RecentTerms
from protocol.types import Wallet

WALLET = Wallet("0x" + "ab" * 20)


@dataclass
class Rows:
    """The collection `workers` with one row, or none."""

    row: dict[str, Any] | None = field(default_factory=lambda: {"banned": False, "not_before": 5.0})
    asked: int = 0
    #: What happens while the row is being read.
    meanwhile: Any = lambda: None

    def find_one(self, *_: object) -> dict[str, Any] | None:
        self.asked += 1
        found = None if self.row is None else dict(self.row)
        self.meanwhile()
        return found

    def update_one(self, _: object, change: dict[str, Any]) -> SimpleNamespace:
        if self.row is not None:
            self.row |= change["$set"]
        return SimpleNamespace(matched_count=int(self.row is not None))


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def recent(rows: Rows, clock: Clock) -> RecentTerms:
    stands_in: Any = rows
    return RecentTerms(stands_in, clock)


def test_good_terms_are_read_once_in_a_while() -> None:
    rows, clock = Rows(), Clock()
    terms = recent(rows, clock)
    for clock.now in (0.0, 1.0, KEPT_SECONDS - 0.1, KEPT_SECONDS):
        assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (False, 5.0)
    assert rows.asked == 2


def test_what_must_not_be_old_is_read_anew() -> None:
    rows = Rows()
    terms = recent(rows, Clock())
    for _ in range(3):
        terms.of(WALLET)
    assert rows.asked == 3


def test_a_ban_and_a_revocation_count_at_once() -> None:
    rows, clock = Rows(), Clock()
    terms = recent(rows, clock)
    terms.of(WALLET, kept_seconds=KEPT_SECONDS)
    assert terms.change(WALLET, {"banned": True})
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (True, 5.0)
    terms.change(WALLET, {"banned": False})
    terms.of(WALLET, kept_seconds=KEPT_SECONDS)
    terms.change(WALLET, {"not_before": 9.0})
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (False, 9.0)


def test_a_ban_that_comes_while_the_row_is_read_counts_for_the_next_request() -> None:
    rows, clock = Rows(), Clock()
    terms = recent(rows, clock)

    def ban() -> None:
        rows.meanwhile = lambda: None
        terms.change(WALLET, {"banned": True})

    rows.meanwhile = ban
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (False, 5.0)
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (True, 5.0)


def test_that_a_wallet_is_banned_or_not_known_is_not_remembered() -> None:
    rows, clock = Rows(row=None), Clock()
    terms = recent(rows, clock)
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) is None
    assert not terms.change(WALLET, {"banned": True})
    rows.row = {"banned": True}
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (True, 0.0)
    rows.row = {"banned": False}
    assert terms.of(WALLET, kept_seconds=KEPT_SECONDS) == (False, 0.0)
