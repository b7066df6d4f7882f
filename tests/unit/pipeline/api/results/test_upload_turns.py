"""Slow and many uploads of one wallet, beside those of others."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.api.results.upload_turns import LEAST_FREE, PER_WALLET, UploadTurns, receive
from protocol.errors import BadMessage, RoomTaken, StorageUnavailable, TooSlow, Unavailable
from protocol.types import TaskId, Wallet

ONE, OTHER = Wallet("0x" + "aa" * 20), Wallet("0x" + "bb" * 20)


def task(number: int) -> TaskId:
    return TaskId("0x" + f"{number:064x}")


def test_a_wallet_sends_a_few_results_at_a_time_and_others_do_not_wait_for_it() -> None:
    turns = UploadTurns()
    with ExitStack() as sending:
        for number in range(PER_WALLET):
            sending.enter_context(turns.receiving(ONE, task(number)))
        with pytest.raises(Unavailable), turns.receiving(ONE, task(99)):
            pytest.fail("one too many was let in")
        sending.enter_context(turns.receiving(OTHER, task(0)))
    with turns.receiving(ONE, task(99)):
        assert turns._by_wallet == {ONE: 1}


def test_a_further_result_of_a_wallet_waits_until_one_has_been_sent_in_the_order_in_which_they_came() -> None:
    turns, came = UploadTurns(), []

    async def send(number: int) -> None:
        assert await turns.has_turn(ONE, task(number))
        with turns.receiving(ONE, task(number)):
            came.append(number)
            await asyncio.sleep(0)

    async def all_at_once() -> None:
        await asyncio.gather(*map(send, range(4 * PER_WALLET)))

    asyncio.run(all_at_once())
    assert came == list(range(4 * PER_WALLET))
    assert not turns._awaited


def test_a_wallet_whose_results_take_long_has_no_turn_for_a_further_one() -> None:
    turns = UploadTurns()

    async def waits() -> tuple[bool, bool]:
        with ExitStack() as sending:
            for number in range(PER_WALLET):
                sending.enter_context(turns.receiving(ONE, task(number)))
            # What is being sent already is for `receiving` to refuse, at once.
            return await turns.has_turn(ONE, task(99), seconds=0.0), await turns.has_turn(ONE, task(0))

    assert asyncio.run(waits()) == (False, True)


def test_a_wallet_sends_one_result_once_at_a_time() -> None:
    turns = UploadTurns()
    with turns.receiving(ONE, task(1)), pytest.raises(Unavailable), turns.receiving(ONE, task(1)):
        pytest.fail("the same result was let in twice")


def test_a_body_that_stalls_is_given_up_and_one_that_flows_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "body"

    async def flowing() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 1000

    async def stalling() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    asyncio.run(receive(flowing(), path, grace=0.05))
    assert path.read_bytes() == b"x" * 3000
    with pytest.raises(BadMessage, match="slowly"):
        asyncio.run(receive(stalling(), path, grace=0.05))


def test_no_body_is_taken_that_could_fill_the_disk_together_with_those_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    turns = UploadTurns()
    with pytest.raises(StorageUnavailable, match="full"), turns.room(tmp_path, 51):
        pytest.fail("more than half of the disk was promised")
    with turns.room(tmp_path, 30), turns.room(tmp_path, 30):
        with pytest.raises(StorageUnavailable, match="full"), turns.room(tmp_path, 30):
            pytest.fail("the disk was promised twice")
        with turns.room(tmp_path, 20):
            pass
    with turns.room(tmp_path, 50):
        pass


def test_what_can_be_spared_goes_before_a_body_is_refused_for_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with UploadTurns().room(tmp_path, 60, lambda: setattr(free, "free", 120)):
        pass


def test_a_body_that_pauses_too_long_is_given_up_however_fast_it_came_before(tmp_path: Path) -> None:
    async def cut_off() -> AsyncIterator[bytes]:
        yield b"x" * 10**6
        await asyncio.Event().wait()

    with pytest.raises(TooSlow):
        asyncio.run(receive(cut_off(), tmp_path / "body", rate=1, stall=0.05))
    assert (tmp_path / "body").stat().st_size == 10**6


def test_new_wallets_together_get_half_of_the_disk_and_proven_machines_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    turns = UploadTurns()
    with turns.room(tmp_path, 30, proven=False), turns.room(tmp_path, 20, proven=False):
        with pytest.raises(StorageUnavailable, match="full"), turns.room(tmp_path, 1, proven=False):
            pytest.fail("new wallets were promised more than half of the disk")
        with turns.room(tmp_path, 25):
            pass
    with turns.room(tmp_path, 50, proven=False):
        pass


def test_new_wallets_at_several_api_processes_together_get_no_more_of_the_disk_than_at_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    one, other = UploadTurns(), UploadTurns()
    with one.room(tmp_path, 25, proven=False, processes=2), other.room(tmp_path, 25, proven=False, processes=2):
        for turns in (one, other):
            with pytest.raises(StorageUnavailable), turns.room(tmp_path, 1, proven=False, processes=2):
                pytest.fail("new wallets were promised more than half of the disk")
            with turns.room(tmp_path, 30, processes=2):
                pass


@pytest.mark.parametrize(("free", "full"), [(LEAST_FREE - 1, True), (LEAST_FREE, False)])
def test_a_disk_is_called_full_by_what_is_free_and_not_by_the_sizes_that_machines_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    turns = UploadTurns()
    with turns.room(tmp_path, free // 2, proven=False):
        with pytest.raises(StorageUnavailable) as refused, turns.room(tmp_path, 10**6, proven=False):
            pytest.fail("new wallets were promised more than half of the disk")
        assert isinstance(refused.value, RoomTaken) is not full
