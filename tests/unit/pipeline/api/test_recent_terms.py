"""What is remembered of the wallets whose tokens were just used."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.api.auth import recent_terms
from pipeline.api.auth.recent_terms import TERMS_SECONDS, RecentTerms, Terms
from protocol.types import Wallet

WALLET, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)


@dataclass
class Database:
    """Terms by wallet, and how often they were read."""

    rows: dict[Wallet, Terms] = field(default_factory=lambda: {WALLET: (False, 0.0)})
    reads: int = 0
    now: float = 100.0

    def read(self, wallet: Wallet) -> Terms:
        self.reads += 1
        return self.rows.get(wallet)

    def recent(self) -> RecentTerms:
        return RecentTerms(self.read, lambda: self.now)


def test_many_requests_of_a_machine_read_its_row_once_and_a_ban_elsewhere_holds_within_its_bound() -> None:
    database = Database()
    recent = database.recent()
    for _ in range(5):
        assert recent.of(WALLET) == (False, 0.0)
    assert database.reads == 1
    database.rows[WALLET] = (True, 5.0)
    database.now += TERMS_SECONDS
    assert recent.of(WALLET) == (True, 5.0)


def test_a_ban_by_this_process_holds_at_once_also_for_a_request_that_read_before_it() -> None:
    database = Database()
    recent = database.recent()

    def banned_meanwhile(wallet: Wallet) -> Terms:
        found = database.read(wallet)
        database.rows[WALLET] = (True, 5.0)
        recent.changed()
        return found

    recent = RecentTerms(banned_meanwhile, lambda: database.now)
    assert recent.of(WALLET) == (False, 0.0), "it came before the ban"
    assert recent.of(WALLET) == (True, 5.0)


def test_a_wallet_that_never_signed_in_is_looked_for_each_time_and_not_remembered() -> None:
    database = Database()
    recent = database.recent()
    assert [recent.of(OTHER), recent.of(OTHER), database.reads] == [None, None, 2]


def test_no_more_than_a_bound_of_wallets_is_remembered() -> None:
    database = Database()
    recent = database.recent()
    database.rows |= {Wallet(f"0x{number:040x}"): (False, 0.0) for number in range(recent_terms.MOST + 1)}
    for wallet in database.rows:
        recent.of(wallet)
    assert len(recent._known) < recent_terms.MOST
