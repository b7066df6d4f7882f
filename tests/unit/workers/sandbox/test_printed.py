"""What a container printed is read from the engine's frames, each stream up to its limit."""

from __future__ import annotations

import io
import struct

import pytest

from workers.sandbox.engine.printed import STDERR, STDOUT, read_frames


def frame(stream: int, content: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(content)) + content


def test_each_stream_gets_its_frames_in_order() -> None:
    answer = frame(STDOUT, b"one ") + frame(STDERR, b"oh") + frame(STDOUT, b"two") + frame(STDERR, b" no")
    assert read_frames(io.BytesIO(answer), 100) == (b"one two", b"oh no")


def test_nothing_printed_is_nothing() -> None:
    assert read_frames(io.BytesIO(b""), 100) == (b"", b"")


def test_a_stream_that_is_full_does_not_hide_what_comes_later_on_the_other() -> None:
    answer = frame(STDOUT, b"x" * 1000) * 50 + frame(STDERR, b"the reason")
    assert read_frames(io.BytesIO(answer), 1500) == (b"x" * 1500, b"the reason")


def test_reading_ends_once_both_streams_are_full() -> None:
    answer = io.BytesIO(frame(STDOUT, b"xx") + frame(STDERR, b"yy") + frame(STDOUT, b"zz"))
    assert read_frames(answer, 2) == (b"xx", b"yy")
    assert answer.read() == frame(STDOUT, b"zz")


@pytest.mark.parametrize("cut", [4, 10])
def test_an_answer_that_is_cut_off_is_not_taken_for_the_end(cut: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        read_frames(io.BytesIO(frame(STDOUT, b"result")[:cut]), 100)


def test_an_engine_that_cannot_read_its_own_log_is_not_taken_for_an_app_that_printed_less() -> None:
    answer = frame(STDOUT, b"line") + frame(3, b"Error grabbing logs: invalid character")
    with pytest.raises(ValueError, match="cannot read"):
        read_frames(io.BytesIO(answer), 100)
