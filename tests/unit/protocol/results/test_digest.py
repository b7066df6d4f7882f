"""Digests of results: files, folders, callbacks, and the order of names."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes, to_bytes_leniently
from protocol.results.digest import callback_digest, directory_digest, file_digest, java_order
from tests.unit.protocol import vectors

AB = "0x3e414b345ce4e8d016eff459b112b41de5bc488237863d83187f93ba096a9666"
#: Also such names as are no proper Unicode: they come from a stranger's file system.
NAMES = st.text(st.characters(exclude_categories=()), min_size=1, max_size=8)
BA = "0xce95d7f2b14b7a634af979eab1f96983236bb41c9f9ac67afcd1d4231e142831"


def digest_of_tree(files: dict[str, bytes], path: str) -> str:
    """The digest a worker would compute of `path` in a tree: a file's own, or a directory's immediate files."""
    if path in files:
        return file_digest(hashlib.sha256(files[path]).digest())
    return directory_digest(
        (name, hashlib.sha256(content).digest()) for name, content in files.items() if "/" not in name
    )


@pytest.mark.parametrize("case", vectors.cases("result_digest"))
def test_result_digests_are_those_of_iexec(case: dict[str, Any]) -> None:
    files = {name: base64.b64decode(content) for name, content in case["files"].items()}
    assert digest_of_tree(files, case["path"]) == case["digest"]


@pytest.mark.parametrize(
    ("files", "digest"),
    [
        ({"a.txt": b"A", "b.txt": b"B"}, AB),
        # Sub-directories count for nothing.
        ({"a.txt": b"A", "b.txt": b"B", "sub/c.txt": b"C"}, AB),
        # Names are not hashed.
        ({"x": b"A", "y": b"B"}, AB),
        # Their order is.
        ({"z.txt": b"A", "b.txt": b"B"}, BA),
        # Upper case comes first.
        ({"B.txt": b"B", "a.txt": b"A"}, BA),
        # "10" comes before "9".
        ({"10": b"A", "9": b"B"}, AB),
        ({"a.txt": b"A"}, "0xa2dc74617ba538e9888027bbdfa4c029129c1d2ad068d51b85628995545bd0d4"),
        ({"e": b""}, "0xa332df1e58a99d8dcb0767dab2d23985ef337d59fadbe040f56e1c642b314973"),
        ({}, "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (
            {"result1.txt": b"A result", "result2.txt": b"Another result"},
            "0xcc77508549295dd5de5876a2f4f00d4c3c27a547c6403450e43ab4de191bf1bc",
        ),
    ],
)
def test_a_directorys_digest_is_that_of_the_worked_example(files: dict[str, bytes], digest: str) -> None:
    assert digest_of_tree(files, "") == digest


def test_a_files_digest_is_its_sha256() -> None:
    assert file_digest(hashlib.sha256(b"hello").digest()) == (
        "0x2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )


def test_names_are_ordered_as_on_the_jvm() -> None:
    in_order = ["10", "9", "B.txt", "_x", "a", "a b", "a-b", "a.txt", "b.txt", "é", "😀", "～"]
    shuffled = random.Random(1).sample(in_order, len(in_order))
    assert sorted(shuffled, key=java_order) == in_order


@given(
    st.dictionaries(NAMES, st.binary(min_size=32, max_size=32), max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_files_are_found_does_not_matter(files: dict[str, bytes], chance: random.Random) -> None:
    found = list(files.items())
    chance.shuffle(found)
    assert directory_digest(found) == directory_digest(files.items())


@pytest.mark.parametrize("case", vectors.cases("callback_digest"))
def test_callback_digests_are_those_of_iexec(case: dict[str, Any]) -> None:
    assert callback_digest(case["callback"]) == case["digest"]


@pytest.mark.parametrize(
    ("callback", "digest"),
    [
        ("0x" + "00" * 31 + "01", "0xb10e2d527612073b26eecdfd717e6a320cf44b4afac2b0732d9fcbe2b7fa0cf6"),
        ("0x" + "00" * 31 + "2a", "0xbeced09521047d05b8960b7e7bcc1d1292cf3e4b2a6b63f48335cbde5f7545d2"),
        ("0x", "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        # An odd first digit stands alone.
        ("0x1", "0x5fe7f977e71dba2ea1a68e21057beebb9be2ac30c6410aa38d4f3fbe41dcffd2"),
    ],
)
def test_a_callbacks_digest_is_that_of_the_worked_example(callback: str, digest: str) -> None:
    assert callback_digest(callback) == digest


def test_empty_callback_data_is_refused() -> None:
    with pytest.raises(BadMessage):
        callback_digest("")


@given(st.binary(max_size=40))
def test_proper_hex_means_the_same_to_the_lenient_decoder(data: bytes) -> None:
    assert to_bytes_leniently("0x" + data.hex()) == to_bytes("0x" + data.hex()) == data
    assert to_bytes_leniently(data.hex().upper()) == data


@given(st.text(max_size=40))
def test_the_lenient_decoder_takes_any_text(text: str) -> None:
    units = len(text.removeprefix("0x").encode("utf-16-be")) // 2
    assert len(to_bytes_leniently(text)) == (units + 1) // 2


def test_a_character_that_java_counts_twice_is_two_that_are_no_digits() -> None:
    assert to_bytes_leniently("\U0001f600") == b"\xef"
    assert to_bytes_leniently("0x1\U0001f600") == b"\x01\xef"
