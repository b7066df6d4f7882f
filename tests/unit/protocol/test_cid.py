"""The CIDv0 of a file, as kubo gives it."""

from __future__ import annotations

import pytest

from protocol.cid import file_cid

#: What `ipfs add --only-hash` of kubo 0.42 prints.
KUBO = {
    "a word": (b"[]", "QmVkvoPGi9jvvuxsHDVJDgzPEzagBaWSZRYoRDzU244HjZ"),
    "a whole block": (bytes(2**18), "QmRk1rduJvo5DfEYAaLobS2za9tDszk35hzaNSDCJ74DA7"),
    "a block and a byte": (bytes(2**18 + 1), "QmbVuw4C4vcmVKqxoWtgDVobvcHrSn51qsmQmyxjk4sB2Q"),
    "eight blocks": ((b'["QmXXXX"]\n' * 200_000)[:2_000_000], "QmbpPsPWwXi9KTkdRHdFsNf6F2uiJzRPrAtwn1nk7f9n8m"),
}


@pytest.mark.parametrize("what", KUBO)
def test_a_file_has_the_id_that_kubo_gives_it(what: str) -> None:
    content, cid = KUBO[what]
    assert file_cid(content) == cid
