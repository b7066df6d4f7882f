"""The page on the local stack names what the code has."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from config.values.stack_settings import StackSettings
from ops.stack.parts import StackPart

PAGE = (Path(__file__).parents[4] / "docs/local-stack.md").read_text()


@pytest.mark.parametrize(("name", "field"), StackSettings.model_fields.items())
def test_every_port_setting_is_on_the_page_with_its_default(name: str, field: FieldInfo) -> None:
    assert f"`SLUICE_STACK_{name.upper()}` ({field.default}" in PAGE


@pytest.mark.parametrize("part", list(StackPart))
def test_every_part_is_on_the_page(part: StackPart) -> None:
    assert f"| `{part}` |" in PAGE
