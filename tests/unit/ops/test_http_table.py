"""The reference of the HTTP API is what both ports serve."""

from __future__ import annotations

from pathlib import Path

from ops.http_table import markdown, routes
from pipeline.api.application import documents

PAGE = Path(__file__).parents[3] / "docs" / "http-api.md"


def test_the_page_of_the_http_api_is_what_there_is() -> None:
    assert PAGE.read_text() == markdown(*documents()), "run: sluice routes --markdown > docs/http-api.md"


def test_every_route_is_on_the_page_with_what_it_does() -> None:
    found = routes(*documents())
    assert len(found) == sum(len(methods) for document in documents() for methods in document["paths"].values())
    for route in found:
        assert f"| `{route.method} {route.path}` |" in PAGE.read_text()
        assert route.about


def test_every_type_that_is_named_is_described() -> None:
    text = PAGE.read_text()
    for document in documents():
        for name in document["components"]["schemas"]:
            assert name.endswith("ValidationError") or f"\n### {name}\n" in text
