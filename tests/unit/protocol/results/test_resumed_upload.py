"""Headers of an upload that goes on where it was cut."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from protocol.errors import BadInput, BadMessage, TooLarge
from protocol.results.resumed_upload import Rest, digest_header, read_digest, read_offset

SHA256 = hashlib.sha256(b"zip").hexdigest()
MOST = 2**30


@given(st.data(), st.integers(1, MOST), st.binary(min_size=32, max_size=32))
def test_a_rest_is_read_as_it_was_written(data: st.DataObject, total: int, sha256: bytes) -> None:
    rest = Rest(data.draw(st.integers(0, total - 1)), total, sha256.hex())
    assert Rest.of(Headers(rest.headers()), MOST) == rest
    assert Rest.of(Headers({**rest.headers(), "content-length": str(rest.length)}), MOST) == rest


@pytest.mark.parametrize(
    "said",
    [
        "",
        "bytes */5",
        "bytes 0-4/*",
        "bytes 0-5/5",
        "bytes 0-3/5",
        "bytes 5-4/5",
        "bytes 0-/5",
        "bytes -1-4/5",
        "bytes 0-4/5, 1-4/5",
        "bytes ٠-٤/٥",
        "items 0-4/5",
        f"bytes 0-{10**30}/{10**30 + 1}",
    ],
)
def test_a_range_that_is_not_the_rest_of_a_zip_is_refused(said: str) -> None:
    with pytest.raises(BadMessage, match="Content-Range"):
        Rest.of({"Content-Range": said, "Repr-Digest": digest_header(SHA256)}, MOST)


def test_more_than_a_result_may_have_and_a_body_of_another_length_are_refused() -> None:
    headers = Rest(10, 20, SHA256).headers()
    with pytest.raises(TooLarge):
        Rest.of(headers, 19)
    with pytest.raises(BadMessage, match="10 bytes"):
        Rest.of({**headers, "Content-Length": "20"}, 20)
    assert Rest.of({"Content-Length": "20"}, 20) is None


@given(st.text(max_size=60) | st.text("sha-256=:+/AZaz09, ", max_size=60))
def test_headers_of_any_text_are_read_or_refused_with_one_error(said: str) -> None:
    for headers in ({"Content-Range": said}, {"Content-Range": "bytes 0-1/2", "Repr-Digest": said}):
        try:
            Rest.of(headers, MOST)
        except BadInput as error:
            assert str(error)


def test_the_sha256_is_found_among_other_digests() -> None:
    assert read_digest(f"sha-512=:AAAA:, {digest_header(SHA256)}") == SHA256
    with pytest.raises(BadMessage, match="Repr-Digest"):
        read_digest(digest_header(SHA256)[:-3])


@pytest.mark.parametrize(
    ("header", "first"),
    [("0", 0), ("7", 7), ("9", 9), ("10", 9), ("11", 9), (None, None), ("-1", None), ("x", None), ("٣", None)],
)
def test_at_least_one_byte_is_left_to_send(header: str | None, first: int | None) -> None:
    assert read_offset(header, 10) == first
