"""What is said of a MongoDB that does not do what it is asked."""

from __future__ import annotations

import pytest
from pymongo.errors import ExecutionTimeout, OperationFailure, ServerSelectionTimeoutError

from config.settings import read_settings
from pipeline import probes
from pipeline.domain.condition.facts import NoAnswer


@pytest.mark.parametrize(
    ("error", "fix", "may_recover"),
    [
        (OperationFailure("Authentication failed.", 18), "Correct user and password", False),
        (OperationFailure("not authorized on sluice", 13), "Correct user and password", False),
        (OperationFailure("interrupted at shutdown", 11600), "See what its log says", True),
        (ExecutionTimeout("operation would exceed time limit", 50), "whether it is overloaded", True),
        (ServerSelectionTimeoutError("connection refused"), "Start it", True),
    ],
)
def test_only_a_user_without_rights_is_told_to_correct_its_password(
    monkeypatch: pytest.MonkeyPatch, error: Exception, fix: str, may_recover: bool
) -> None:
    def refuses(_: object) -> None:
        raise error

    monkeypatch.setattr(probes, "database", refuses)
    found = probes.ask_database(read_settings(), lambda: 0.0)
    assert isinstance(found, NoAnswer)
    assert fix in found.fix
    assert found.may_recover is may_recover
