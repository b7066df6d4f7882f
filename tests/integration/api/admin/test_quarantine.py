"""`sluice quarantine …` by the operator's API, on a real MongoDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pipeline.store.quarantine import FIRST_WAIT
from tests.integration.api.conftest import Api

DEAL, OTHER = "0x" + "11" * 32, "0x" + "22" * 32


@pytest.fixture
def held(api: Api) -> Api:
    """The API of a pool with two rows in quarantine."""
    rows = api.services.store.quarantine
    rows.add("deals", [(DEAL, "trust is too \x1b[2Jlarge")], api.clock())
    rows.add("tasks", [(OTHER, "it has another shape")], api.clock() + 1)
    return api


def test_rows_are_listed_with_their_reasons_and_the_exit_code_says_that_there_are_any(
    held: Api, sluice: Callable[..., tuple[int, Any]]
) -> None:
    code, found = sluice("quarantine", "ls", "--json")
    assert code == 1
    assert [(row["collection"], row["key"], row["times"], row["accepted"]) for row in found] == [
        ("deals", DEAL, 1, False),
        ("tasks", OTHER, 1, False),
    ]
    assert found[0]["until"] - found[0]["since"] == FIRST_WAIT
    assert len(sluice("quarantine", "ls", "--limit", "1", "--json")[1]) == 1
    code, screen = sluice("quarantine", "ls")
    assert (code, DEAL in screen, "another shape" in screen, "\x1b" in screen) == (1, True, True, False)


def test_rows_are_made_due_all_of_a_collection_or_one(held: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    def due() -> list[str]:
        return [str(entry.key) for entry in held.services.store.quarantine.entries_due(held.clock(), 10)]

    answer = {"rows": 2, "accepted": None, "dry_run": True}
    assert sluice("quarantine", "retry", "--dry-run", "--json") == (0, answer)
    assert due() == []
    assert sluice("quarantine", "retry", "--key", DEAL, "--json")[1]["rows"] == 1
    assert due() == [DEAL]
    assert sluice("quarantine", "retry", "--collection", "tasks", "--json")[1]["rows"] == 1
    assert sorted(due()) == [DEAL, OTHER]
    code, said = sluice("quarantine", "retry", "--key", "0x3")
    assert (code, "`sluice quarantine ls`" in said) == (2, True)


def test_an_accepted_row_is_counted_no_more_until_that_is_undone(
    held: Api, sluice: Callable[..., tuple[int, Any]]
) -> None:
    counts = held.services.store.quarantine.counts
    assert sluice("quarantine", "accept", "--key", DEAL, "--dry-run")[1] == f"It would be accepted: {DEAL}.\n"
    assert counts() == {"deals": 1, "tasks": 1}
    assert sluice("quarantine", "accept", "--key", DEAL)[1].startswith(f"Accepted: {DEAL}.\n")
    assert counts() == {"tasks": 1}
    assert sluice("quarantine", "accept", "--key", OTHER, "--collection", "deals")[0] == 2
    assert sluice("quarantine", "accept", "--key", OTHER, "--collection", "tasks")[0] == 0
    assert sluice("quarantine", "ls")[0] == 0, "all are accepted"
    assert sluice("quarantine", "accept", "--key", DEAL, "--undo", "--json")[1] == {
        "rows": 1,
        "accepted": False,
        "dry_run": False,
    }
    assert counts() == {"deals": 1}


def test_a_pool_without_quarantined_rows_says_so(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    assert sluice("quarantine", "ls") == (0, "Nothing is quarantined.\n")
    assert sluice("quarantine", "retry", "--json")[0] == 0, "none is named"


def test_changes_need_the_token(held: Api) -> None:
    for path in ("retry", f"accept?key={DEAL}"):
        answer = held.operations.post(f"/admin/quarantine/{path}")
        assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert held.services.store.quarantine.counts() == {"deals": 1, "tasks": 1}
