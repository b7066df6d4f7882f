"""The threat model names tests that exist, and each of its controls names one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.documents import ROOT

PAGE = (ROOT / "docs" / "threat-model.md").read_text()
_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
NAMED = sorted(set(_TEST.findall(PAGE)))
#: Rows of tables whose heading has a column "test".
CONTROLS = [
    row
    for table in re.findall(r"^\| it tries to \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    for row in table.splitlines()
]


@cache
def functions(file: str) -> frozenset[str]:
    """Names of all functions of a file of tests."""
    path = Path(ROOT / "tests" / file)
    assert path.exists(), f"no file tests/{file}"
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_the_threat_model_names_exists(file: str, test: str) -> None:
    assert test in functions(file), f"tests/{file} has no {test}"


def test_every_control_of_the_threat_model_names_a_test() -> None:
    assert len(CONTROLS) >= 30
    assert [row for row in CONTROLS if not _TEST.search(row)] == []
