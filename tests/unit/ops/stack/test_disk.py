"""A disk that is too full for the stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.stack.stack import LEAST_FREE, first_that_exists, refuse_full_disk
from protocol.errors import StackError


def test_a_full_disk_is_said_before_anything_is_started(tmp_path: Path) -> None:
    refuse_full_disk(tmp_path, LEAST_FREE)
    with pytest.raises(StackError, match=r"has 0\.29 GB free; the stack needs 1 GB.*set SLUICE_HOME"):
        refuse_full_disk(tmp_path, 287 * 2**20 - 10**7)


def test_the_disk_of_a_folder_that_is_still_to_be_made_is_found(tmp_path: Path) -> None:
    assert first_that_exists(tmp_path / "not" / "there") == tmp_path
