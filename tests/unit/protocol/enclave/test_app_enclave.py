"""What the chain has of an app's SGX enclave, as the SDK 8.24 writes it."""

from __future__ import annotations

import json

import pytest

from protocol.enclave.sgx import read_app_enclave
from protocol.errors import BadMessage
from protocol.poco.tags import Framework

SCONE = {
    "framework": "SCONE",
    "version": "v5",
    "entrypoint": "python /app/app.py",
    "heapSize": 1073741824,
    "fingerprint": "ab" * 32,
}
GRAMINE = {"framework": "GRAMINE", "version": "v0", "fingerprint": "ab" * 32}


@pytest.mark.parametrize("written", [SCONE, GRAMINE], ids=lambda given: given["framework"])
def test_what_the_sdk_writes_is_read(written: dict[str, object]) -> None:
    kind = Framework(str(written["framework"]))
    found = read_app_enclave(json.dumps(written).encode(), kind)
    assert (found.framework, found.version, found.heap_size) == (kind, written["version"], written.get("heapSize", 0))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no JSON object"),
        (b"[]", "it is no JSON object"),
        (b"\xff\xfe", "it is no JSON object"),
        (json.dumps({**SCONE, "framework": "RISC"}).encode(), "framework"),
        (json.dumps({**SCONE, "version": "../admin"}).encode(), "version"),
        (json.dumps({**SCONE, "heapSize": -1}).encode(), "heapSize"),
        (json.dumps({**SCONE, "heapSize": 0}).encode(), "which"),
        (json.dumps({**SCONE, "entrypoint": " "}).encode(), "which"),
        (json.dumps({**SCONE, "fingerprint": ""}).encode(), "fingerprint"),
        (json.dumps(GRAMINE).encode(), "of GRAMINE, and its task's of SCONE"),
    ],
    ids=["empty", "a list", "no text", "kind", "version", "heap", "no heap", "no entry point", "fingerprint", "other"],
)
def test_what_no_enclave_of_scone_is_made_of_is_refused_with_what_is_wrong(content: bytes, words: str) -> None:
    with pytest.raises(BadMessage, match=words):
        read_app_enclave(content, Framework.SCONE)
