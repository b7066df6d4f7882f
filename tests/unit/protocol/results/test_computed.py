"""What a computed.json may hold."""

from __future__ import annotations

import json

import pytest

from protocol.errors import BadMessage
from protocol.results.computed import CALLBACK_BYTES, read_computed


def saying(size: int) -> bytes:
    return json.dumps({"callback-data": "0x" + "ab" * size}).encode()


def test_callback_data_that_no_finalize_could_carry_fails_before_the_vote() -> None:
    assert read_computed(saying(CALLBACK_BYTES), callback=True).callback_data is not None
    with pytest.raises(BadMessage, match="longer"):
        read_computed(saying(CALLBACK_BYTES + 1), callback=True)


def test_callback_data_of_a_deal_without_callback_counts_for_nothing() -> None:
    content = {"callback-data": "0x" + "ab" * 2 * CALLBACK_BYTES, "deterministic-output-path": "/iexec_out"}
    assert read_computed(json.dumps(content).encode(), callback=False).output_path == ""
