"""`sluice ledger --csv` has all lines, however many there are and whatever is added while they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ops.commands.money import ledger
from ops.commands.money.ledger import MOST_LINES, all_lines
from pipeline.domain.money.statement import By, Line, page


def asked(by: By, lines: dict[str, Line], most: int, meanwhile: Callable[[int], None]) -> Callable[..., Any]:
    """The API, which gives pages of `most` lines."""
    pages = iter(range(10**6))

    def ask(*, limit: int, after: str) -> dict[str, Any]:
        key = (lambda each: (each.at, each.key)) if by is By.TASK else (lambda each: (0.0, each.key))
        found = page(by, sorted(lines.values(), key=key), min(limit, most), after)
        meanwhile(next(pages))
        shown = [{"key": each.key, "gas_wei": each.gas_wei} for each in found.lines]
        return {"lines": shown, "more": found.more, "next": found.next}

    return ask


@given(
    st.sampled_from(By),
    st.dictionaries(st.text("ab: ", min_size=1, max_size=3), st.floats(0, 2e9), max_size=20),
    st.integers(1, 5),
    st.lists(st.integers(0, 19), max_size=8),
)
def test_each_line_is_printed_once_whatever_is_added_meanwhile(
    by: By, times: dict[str, float], most: int, added: list[int]
) -> None:
    lines = {key: Line(key, at, gas_wei=1) for key, at in times.items()}

    def add(number: int) -> None:
        if number < len(added) and lines:
            key = sorted(lines)[added[number] % len(lines)]
            newest = max(each.at for each in lines.values())
            lines[key] = replace(lines[key], at=newest + 1, gas_wei=lines[key].gas_wei + 1)

    found, _ = all_lines(asked(by, lines, most, add))
    assert sorted(line["key"] for line in found) == sorted(times)
    if by is By.TASK and not added:
        assert [line["key"] for line in found] == sorted(times, key=lambda key: (times[key], key))


def test_more_lines_than_one_answer_holds_are_all_printed() -> None:
    lines = {f"0x{number:064x}": Line(f"0x{number:064x}", number / 7) for number in range(2 * MOST_LINES + 5)}
    found, last = all_lines(asked(By.TASK, lines, MOST_LINES, lambda _: None))
    assert [line["key"] for line in found] == list(lines)
    assert last["next"] is None


def test_without_a_place_the_newest_lines_are_shown_and_the_rest_is_counted() -> None:
    lines = [Line(f"0x{number}", float(number)) for number in range(9)]
    found = page(By.TASK, lines, 4, None)
    assert ([each.key for each in found.lines], found.more, found.next) == (["0x5", "0x6", "0x7", "0x8"], 5, None)
    assert page(By.TASK, lines, 9, None).more == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--limit", "10000"], 0), (["--limit", "10001"], 2), (["--since", "1d", "--until", "2d"], 2)],
    ids=str,
)
def test_as_many_lines_can_be_asked_for_as_the_api_gives(
    words: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: dict[str, Any] = {}

    class Api:
        @classmethod
        def open(cls) -> Api:
            return cls()

        def get(self, _: str, **params: Any) -> dict[str, Any]:
            asked_for.update(params)
            even = dict.fromkeys(("differs_stake_nrlc", "differs_locked_nrlc", "differing"), 0)
            return {"reconciled": even}

    monkeypatch.setattr(ledger, "OperatorApi", Api)
    monkeypatch.setattr(ledger, "drawn", lambda _: "")
    app = typer.Typer()
    ledger.register(app)
    app.command("other")(lambda: None)
    ended = CliRunner().invoke(app, ["ledger", *words])
    assert (ended.exit_code == 0) is (code == 0)
    assert asked_for.get("limit") == (10_000 if code == 0 else None)
