"""Dates in headers that another machine wrote."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from config.connections.http_dates import read_http_date


def test_a_date_is_read_with_its_zone() -> None:
    assert read_http_date("Wed, 01 Jan 2025 00:01:00 GMT") == datetime(2025, 1, 1, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "soon",
        "Wed, 01 Jan 2025 00:01:00 -0000",
        "Mon, 1 Jan 20000 00:00:00 GMT",
        "Mon, 1 Jan 99999999999999 00:00:00 GMT",
        "Mon, 1 Jan 2027 99999999999999999999:00:00 GMT",
        "Mon, 1 Jan 2027 00:00:00 +99999999999999999999",
    ],
)
def test_what_names_no_moment_is_none(text: str | None) -> None:
    assert read_http_date(text) is None
