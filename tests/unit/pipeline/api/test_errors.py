"""What the API answers a client when something is not there."""

from __future__ import annotations

import json

import pytest

from pipeline.api.errors import answer
from protocol.errors import NotFound


def error_body(what: str) -> dict[str, str]:
    response = answer(NotFound(what=what))
    assert response.status_code == 404
    found: dict[str, str] = json.loads(bytes(response.body))
    return found


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("task 0x1", "deal is known a block or two"),
        ("deal 0x1", "deal is known a block or two"),
        ("worker 0x1", "first sign-in"),
        ("replicate of 0x1 for task 0x2", "lists the workers"),
        ("output of 0x1 for task 0x2", "printed"),
        ("workerpool 0x1 on chain 5", "GET /config"),
    ],
)
def test_what_is_missing_comes_with_advice_of_its_own(what: str, word: str) -> None:
    assert error_body(what)["error"] == f"No such {what}."
    assert word in error_body(what)["fix"]


def test_advice_about_deals_is_given_for_deals_only() -> None:
    assert "deal" not in error_body("worker 0x1")["fix"]
    assert "deal" not in error_body("something else")["fix"]
