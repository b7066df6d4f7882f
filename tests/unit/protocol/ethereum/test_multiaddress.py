"""Addresses of apps and datasets as the registries store them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ethereum.multiaddress import location_text

#: Two addresses and what `multiaddr("/ipfs/…").bytes` makes of them.
KNOWN = {
    "/ipfs/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC": "a503221220"
    "d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b",
    "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG": "a503221220"
    "9d6c2be50f706953479ab9df2ce3edca90b68053c00b3004b7f0accbe1e8eedf",
}


@pytest.mark.parametrize("text", KNOWN)
def test_a_binary_ipfs_address_is_read_as_people_write_it(text: str) -> None:
    assert location_text(bytes.fromhex(KNOWN[text])) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/file.csv",
        "registry.hub.docker.com/iexechub/python-hello-world:8.0.0",
        "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG/readme",
        "ipfs://QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
        "",
    ],
)
def test_an_address_stored_as_text_stays_as_it_is(text: str) -> None:
    assert location_text(text.encode()) == text


@given(st.text())
def test_any_text_is_read_back(text: str) -> None:
    assert location_text(text.encode(errors="replace")) == text.encode(errors="replace").decode()


@given(st.binary(min_size=32, max_size=32))
def test_every_sha256_address_begins_as_ipfs_addresses_do(digest: bytes) -> None:
    assert location_text(b"\xa5\x03\x22\x12\x20" + digest).startswith("/ipfs/Qm")


@given(
    st.binary()
    | st.binary(max_size=40).map(lambda rest: b"\xa5\x03\x22\x12\x20" + rest)
    | st.binary().map(b"\xa5\x03".__add__)
)
def test_any_bytes_are_an_address_of_some_kind(stored: bytes) -> None:
    assert isinstance(location_text(stored), str)
