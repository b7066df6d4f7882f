"""The zip in the JSON by which enclaves store results, however the body comes in pieces."""

from __future__ import annotations

import base64
import json
from itertools import chain, repeat

import pytest

from protocol.enclave.reports import read_exit_causes, read_signed_result
from protocol.enclave.result_model import zip_in
from protocol.errors import BadMessage

ZIP = bytes(range(256)) + b"PK"
HEAD = {"chainTaskId": "0x" + "1b" * 32, "dealId": "0x", "taskIndex": 0}
TAIL = {"deterministHash": "0x", "enclaveSignature": "0x"}
#: As iExec's programs in Java and ours write it, and as those in Rust do.
BODIES = {
    "base64": json.dumps(HEAD | {"zip": base64.b64encode(ZIP).decode()} | TAIL).encode(),
    "numbers": json.dumps(HEAD | {"zip": list(ZIP)} | TAIL, separators=(",", ":")).encode(),
    "numbers with spaces": json.dumps(HEAD | {"zip": list(ZIP)} | TAIL, indent=1).encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_zip_is_whole_wherever_the_body_is_cut_into_pieces(body: bytes) -> None:
    for size in (1, 2, 3, 5, 64, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        left = iter(pieces)
        assert b"".join(zip_in(left)) == ZIP
        # To its end, so that an answer can be sent.
        assert next(left, None) is None


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_ends_within_its_zip_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage, match="cut"):
        list(zip_in([body[: len(body) // 2]]))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"zip": "??"}', b'{"zip": [1, 256]}', b'{"zip": [1, "a"]}', b'{"zip": null}', bytes(2**17)]
)
def test_what_holds_no_zip_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        list(zip_in([body[:100], body[100:]]))


@pytest.mark.parametrize("endless", [b"1", b" "])
def test_a_number_without_an_end_is_refused_before_it_fills_the_memory(endless: bytes) -> None:
    given = chain([b'{"zip": ['], repeat(endless * 1000, 100))
    with pytest.raises(BadMessage, match="neither"):
        list(zip_in(given))
    assert len(list(given)) > 90


def test_causes_come_in_a_list_or_from_older_programs_alone() -> None:
    new = b'[{"cause": "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED", "message": "HTTP 404"}, {"cause": "SECOND"}]'
    assert [each.cause for each in read_exit_causes(new)] == ["PRE_COMPUTE_DATASET_DOWNLOAD_FAILED", "SECOND"]
    assert read_exit_causes(b'{"cause": "A", "message": "' + b"w" * 5000 + b'"}')[0].message == "w" * 1000
    assert read_exit_causes(b' {"cause": "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"}')[0].message == ""


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'[{"cause": "no name"}]', b'{"cause": "' + b"A" * 101 + b'"}'])
def test_what_is_no_cause_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        read_exit_causes(body)
    with pytest.raises(BadMessage):
        read_signed_result(body)
