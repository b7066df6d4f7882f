"""What stays of uploads that are cut, and goes on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.api.results import parts
from pipeline.api.results.upload_turns import PER_WALLET, receive
from protocol.errors import BadMessage, Refused, StorageUnavailable, TooSlow, UnderWay, WrongOffset
from protocol.results.resumed_upload import Rest
from protocol.types import TaskId, Wallet

ONE, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)
TASK = TaskId("0x" + "11" * 32)
ZIP = bytes(range(256)) * 4
SHA256 = hashlib.sha256(ZIP).hexdigest()


class Cut(Exception):
    """The line is gone."""


def task(number: int) -> TaskId:
    return TaskId("0x" + f"{number:064x}")


def send(
    folder: Path,
    body: bytes,
    rest: Rest,
    *,
    cut: bool = False,
    wallet: Wallet = ONE,
    task_id: TaskId = TASK,
    fails: BaseException | None = None,
) -> bytes:
    """One request as the route handles it: what is there in the end. `fails`: what storing it raises."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 100):
            yield body[at : at + 100]
        if cut:
            raise Cut

    with parts.part_of(folder, task_id, wallet, rest) as path:
        asyncio.run(receive(chunks(), path, first=rest.first, most=rest.length))
        parts.check_whole(path, rest)
        if fails is not None:
            raise fails
        return path.read_bytes()


def leave(folder: Path, count: int = 500, *, wallet: Wallet = ONE, task_id: TaskId = TASK) -> None:
    """Have an upload cut after `count` bytes."""
    with pytest.raises(Cut):
        send(folder, ZIP[:count], Rest(0, len(ZIP), SHA256), cut=True, wallet=wallet, task_id=task_id)


def held(folder: Path, wallet: Wallet = ONE, task_id: TaskId = TASK, sha256: str = SHA256) -> int:
    return parts.bytes_held(folder, task_id, wallet, sha256)


@given(st.binary(min_size=1, max_size=2000), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 300)), max_size=6))
def test_any_sequence_of_cuts_ends_with_the_same_bytes(content: bytes, cuts: list[tuple[int, int]]) -> None:
    """Each cut: bytes that arrive of that request, and how many of those that are there it sends again."""
    sha256, total = hashlib.sha256(content).hexdigest(), len(content)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for arrives, again in cuts:
            first = max(0, min(held(folder, sha256=sha256), total - 1) - again)
            with pytest.raises(Cut):
                send(folder, content[first : first + arrives], Rest(first, total, sha256), cut=True)
            assert held(folder, sha256=sha256) == min(first + arrives, total)
        first = min(held(folder, sha256=sha256), total - 1)
        assert send(folder, content[first:], Rest(first, total, sha256)) == content
        assert list(folder.iterdir()) == []


def test_an_offset_beyond_what_is_there_is_told_where_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(WrongOffset, match="byte 0"):
        send(tmp_path, ZIP[1:], Rest(1, len(ZIP), SHA256))
    assert list(tmp_path.iterdir()) == []
    leave(tmp_path)
    with pytest.raises(WrongOffset, match="byte 500") as caught:
        send(tmp_path, ZIP[501:], Rest(501, len(ZIP), SHA256))
    assert caught.value.fields["held"] == held(tmp_path) == 500


def test_another_zip_begins_anew_and_takes_nothing_of_the_first(tmp_path: Path) -> None:
    leave(tmp_path)
    other = hashlib.sha256(ZIP[::-1]).hexdigest()
    with pytest.raises(WrongOffset, match="byte 0"):
        send(tmp_path, ZIP[::-1][500:], Rest(500, len(ZIP), other))
    assert held(tmp_path) == 0
    assert send(tmp_path, ZIP[::-1], Rest(0, len(ZIP), other)) == ZIP[::-1]


def test_bytes_that_are_not_the_declared_zip_are_dropped_and_it_begins_at_0(tmp_path: Path) -> None:
    leave(tmp_path)
    with pytest.raises(WrongOffset, match=r"byte 0.*sha256"):
        send(tmp_path, bytes(len(ZIP) - 500), Rest(500, len(ZIP), SHA256))
    assert list(tmp_path.iterdir()) == []


def test_another_length_of_the_same_zip_stores_nothing(tmp_path: Path) -> None:
    leave(tmp_path)
    with pytest.raises(WrongOffset, match="byte 0"):
        send(tmp_path, ZIP[300:400], Rest(300, 400, SHA256))
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_ends_early_goes_on_and_one_that_is_larger_than_declared_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(WrongOffset, match="byte 200"):
        send(tmp_path, ZIP[:200], Rest(0, len(ZIP), SHA256))
    with pytest.raises(BadMessage, match="more than the 824 bytes"):
        send(tmp_path, ZIP[200:] + b"x", Rest(200, len(ZIP), SHA256))
    assert list(tmp_path.iterdir()) == []


def test_another_wallet_and_another_task_have_nothing_of_it(tmp_path: Path) -> None:
    leave(tmp_path)
    assert (held(tmp_path), held(tmp_path, OTHER), held(tmp_path, task_id=task(2))) == (500, 0, 0)
    with pytest.raises(WrongOffset, match="byte 0"):
        send(tmp_path, ZIP[500:], Rest(500, len(ZIP), SHA256), wallet=OTHER)
    assert held(tmp_path) == 500


def test_while_one_request_has_it_no_other_writes_or_removes_it(tmp_path: Path) -> None:
    leave(tmp_path)
    rest = Rest(500, len(ZIP), SHA256)
    with parts.part_of(tmp_path, TASK, ONE, rest) as path:
        with pytest.raises(UnderWay):
            send(tmp_path, ZIP[500:], rest)
        with pytest.raises(UnderWay, match="another zip"):
            send(tmp_path, ZIP, Rest(0, len(ZIP), "00" * 32))
        assert held(tmp_path) == 500
        parts.remove_all_idle(tmp_path)
        parts.remove_parts(tmp_path, TASK, ONE)
        assert path.stat().st_size == 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (StorageUnavailable(what="IPFS", why="away"), True),
        (TooSlow(why="slow"), True),
        (KeyboardInterrupt(), True),
        (BadMessage(why="no zip"), False),
        (Refused(why="not voted for"), False),
        (OSError(28, "no space"), False),
    ],
)
def test_a_whole_zip_stays_if_the_pool_could_not_store_it_and_not_if_it_is_refused(
    tmp_path: Path, error: BaseException, stays: bool
) -> None:
    with pytest.raises(type(error)):
        send(tmp_path, ZIP, Rest(0, len(ZIP), SHA256), fails=error)
    assert held(tmp_path) == (len(ZIP) if stays else 0)
    if stays:
        assert send(tmp_path, ZIP[-1:], Rest(len(ZIP) - 1, len(ZIP), SHA256)) == ZIP


def test_of_a_wallet_only_the_newest_stay_and_others_keep_theirs(tmp_path: Path) -> None:
    leave(tmp_path, wallet=OTHER)
    for number in range(5):
        leave(tmp_path, task_id=task(number))
        # File systems keep times of their own coarseness.
        for path in tmp_path.glob(f"{task(number)}.*"):
            os.utime(path, (number, number))
    assert [number for number in range(5) if held(tmp_path, task_id=task(number))] == [3, 4]
    assert len(list(tmp_path.iterdir())) == PER_WALLET + 1
    assert held(tmp_path, OTHER) == 500


def test_there_are_never_more_than_the_most_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_PARTS", 3)
    for number in range(6):
        leave(tmp_path, wallet=Wallet("0x" + f"{number:040x}"))
    assert len(list(tmp_path.iterdir())) == 3


def test_what_had_no_byte_for_an_hour_is_removed(tmp_path: Path) -> None:
    leave(tmp_path)
    leave(tmp_path, wallet=OTHER)
    (mine,) = tmp_path.glob(f"*.{ONE}.*")
    os.utime(mine, (1000.0, 1000.0))
    os.utime(next(tmp_path.glob(f"*.{OTHER}.*")), (1001.0, 1001.0))
    parts.remove_old(tmp_path, 1000.5 + parts.KEPT_SECONDS)
    assert (held(tmp_path), held(tmp_path, OTHER)) == (0, 500)


def test_files_of_an_api_process_that_ended_go_after_an_hour_and_those_of_another_one_under_way_stay(
    tmp_path: Path,
) -> None:
    ended, under_way = tmp_path / "ended.zip", tmp_path / "under_way.zip"
    for path, written_at in ((ended, 1000.0), (under_way, 1001.0)):
        path.write_bytes(ZIP)
        os.utime(path, (written_at, written_at))
    parts.remove_old(tmp_path, 1000.5 + parts.KEPT_SECONDS)
    assert list(tmp_path.iterdir()) == [under_way]
