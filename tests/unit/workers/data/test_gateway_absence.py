"""What a gateway says is missing, and whether the folder's own block proves it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.data.gateway_absence import lacks, missing_link

FOLDER = "QmXqtmuEtCQ2aQJt8bvHL1gpnNvPjQHvP1Jaiys3sqnnxJ"
#: Blocks as kubo 0.42 sends them: a folder with one entry `d`, and an empty folder.
ONE_ENTRY = bytes.fromhex(
    "12290a2212204d794109fa622449a917069dcc5605ab046784a5148895e0b6d1a1fc9a3361a9120164183a0a020801"
)
EMPTY = bytes.fromhex("0a020801")


def test_the_reason_names_the_folder_that_lacks_an_entry() -> None:
    said = f'failed to resolve /ipfs/{FOLDER}/a/b: no link named "b" under {FOLDER}\n'
    assert missing_link(said) == (FOLDER, "b")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "404 page not found",
        f"failed to resolve /ipfs/{FOLDER}: block was not found locally (offline): ipld: could not find {FOLDER}",
        f'no link named "" under {FOLDER}',
        f'no link named "a\\"b" under {FOLDER}',
        'no link named "x" under ../../admin',
        'no link named "x" under short',
    ],
)
def test_any_other_reason_names_nothing(said: str) -> None:
    assert missing_link(said) is None


def test_a_folder_proves_that_it_lacks_what_it_does_not_list() -> None:
    assert lacks(ONE_ENTRY, "nope")
    assert not lacks(ONE_ENTRY, "d")
    assert lacks(EMPTY, "d")


@pytest.mark.parametrize(
    "block",
    [b"", b"\x0a\x02\x08\x05", b"\x0a\x02\x08\x02", EMPTY + EMPTY, b"not a block at all", ONE_ENTRY[:-1], b"\xff" * 20],
    ids=["nothing", "spread over blocks", "a file", "two kinds", "text", "cut short", "no end"],
)
def test_what_is_no_whole_folder_proves_nothing(block: bytes) -> None:
    assert not lacks(block, "nope")


@given(st.binary(max_size=200))
def test_no_bytes_are_a_crash(block: bytes) -> None:
    lacks(block, "x")


@given(st.integers(0, len(ONE_ENTRY) - 1))
def test_a_block_that_is_cut_short_proves_nothing(length: int) -> None:
    assert not lacks(ONE_ENTRY[:length], "nope")
