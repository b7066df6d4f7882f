"""Looks at the certificates that the pool shows: beside everything else, and not too often."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from config.settings import Settings, read_settings
from pipeline import certificates
from pipeline.certificates import LOOK_SECONDS, LastLook
from pipeline.domain.condition.facts import CertificateFacts


class _ByHand(Executor):
    """Does what it is given when the test says so."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        self.given.append((Future(), fn, args))
        return self.given[-1][0]

    def do(self) -> None:
        future, call, args = self.given[-1]
        future.set_result(call(*args))


def test_a_report_waits_for_no_look_and_a_renewal_is_seen_within_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = [(CertificateFacts("a:443", 0.0, 1.0),), (CertificateFacts("a:443", 1.0, 2.0),)]

    def next_shown(_: Settings) -> tuple[CertificateFacts, ...]:
        return shown.pop(0)

    monkeypatch.setattr(certificates, "shown", next_shown)
    first, second = shown
    look, threads, now = LastLook(), _ByHand(), read_settings()
    assert look.seen(now, 5.0, threads) == look.seen(now, 6.0, threads) == ()
    threads.do()
    assert look.seen(now, 7.0, threads) == look.seen(now, 6.0 + LOOK_SECONDS, threads) == first
    assert len(threads.given) == 1
    assert look.seen(now, 7.0 + LOOK_SECONDS, threads) == look.seen(now, 8.0 + LOOK_SECONDS, threads) == first
    assert len(threads.given) == 2
    threads.do()
    assert look.seen(now, 9.0 + LOOK_SECONDS, threads) == second
