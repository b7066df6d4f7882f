"""Every whole number that a client may write has bounds that all parts can store (8 bytes)."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from pipeline.api.application import create_app, create_operations_app
from protocol import wire

#: What MongoDB, SQLite and JSON readers of other languages take.
LEAST, MOST = -(2**63), 2**63 - 1
MESSAGES = sorted(
    (
        message
        for message in vars(wire).values()
        if isinstance(message, type) and issubclass(message, BaseModel) and message.__module__ == wire.__name__
    ),
    key=lambda message: message.__name__,
)


def unbounded(schema: Any, path: str) -> Iterator[str]:
    """Paths of integers in a JSON schema without bounds, or with bounds beyond 8 bytes."""
    if isinstance(schema, list):
        for place, item in enumerate(schema):
            yield from unbounded(item, f"{path}/{place}")
    elif isinstance(schema, dict):
        if schema.get("type") == "integer" and "const" not in schema and "enum" not in schema:
            low = schema.get("minimum", schema.get("exclusiveMinimum"))
            high = schema.get("maximum", schema.get("exclusiveMaximum"))
            if low is None or high is None or low < LEAST or high > MOST + 1:
                yield path
        for name, inner in schema.items():
            yield from unbounded(inner, f"{path}/{name}")


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_every_number_in_a_message_has_bounds(message: type[BaseModel]) -> None:
    assert list(unbounded(message.model_json_schema(), message.__name__)) == []


@pytest.mark.parametrize("create", [create_app, create_operations_app])
def test_every_number_that_a_request_may_carry_has_bounds(create: Any) -> None:
    services = SimpleNamespace(
        settings=SimpleNamespace(max_result_bytes=1, admin_token=SecretStr("x" * 24)), rates=None
    )
    app = create(services)
    described = get_openapi(title="x", version="x", routes=app.routes)
    asked = {
        f"{method} {path}": {part: operation.get(part) for part in ("parameters", "requestBody")}
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    }
    assert asked
    assert list(unbounded(asked, "")) == []


@pytest.mark.parametrize("number", [2**63, 2**70, -(2**63) - 1])
@pytest.mark.parametrize("kind", [wire.Whole, wire.ExitCode, wire.Port])
def test_a_number_of_more_than_8_bytes_is_refused_at_the_door(kind: Any, number: int) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(number)
