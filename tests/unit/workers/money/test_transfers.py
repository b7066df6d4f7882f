"""A deposit or withdrawal is sent once at most, whenever its command is killed and whenever it is asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain.lane.phases import send
from chain.lane.run import Lane
from chain.lane.testing import MemoryStore
from chain.lane.transfer import Transfer
from config.settings import Settings, read_settings
from protocol.errors import TransferDropped
from protocol.types import Contract, NRlc, Wei
from tests.unit.chain.lane.crashing_ports import Crash
from tests.unit.chain.lane.rig import Rig
from workers.data.layout import Layout
from workers.money import transfers
from workers.money.transfers import WISH_SECONDS, Made

TRANSFER = Transfer(
    "deposit", NRlc(7), NRlc(0), NRlc(0), NRlc(9), Contract("0x" + "aa" * 20), "0x", Wei(0), 50_000, Wei(1)
)
WEEKS = 21 * 86_400.0
WAIT_SECONDS = 300.0


def die(*_: object, **__: object) -> Any:
    raise Crash


def die_after(target: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        target(*args, **kwargs)
        raise Crash

    return call


#: Where a command dies, and whether the lane could send the wish without it.
MOMENTS: dict[str, tuple[Any, str, Callable[..., Any], bool]] = {
    "the wish is on disk, the lane does not know it": (Lane, "submit", die, False),
    "the lane knows it, the wish does not say so": (Lane, "submit", die_after(Lane.submit), True),
    "the wish says so, nothing is signed": (transfers, "_advance", die, True),
    "it is signed and stored, nothing is sent": ("chain.lane.run", "broadcast", die, True),
    "it is sent, no block has it": (Lane, "run", die_after(Lane.run), True),
    "a block has it, nobody has read that": (transfers, "Made", die, True),
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "worker")
    made.make()
    return made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings(home=tmp_path)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    rig = Rig()

    def blocks(*_: object) -> Iterator[int]:
        for _number in range(5):
            yield len(rig.chain.blocks)
            rig.chain.mine()

    monkeypatch.setattr(transfers, "heads", blocks)
    return rig


def command(rig: Rig, layout: Layout, settings: Settings, lane: Lane | None = None) -> Made:
    """What the command does with the same words, up to its printing."""
    lane = lane or rig.new_lane()
    wish = transfers.pending(layout) or transfers.begin(layout, TRANSFER, lane.id.chain_id, rig.clock())
    try:
        made = transfers.carry_out(layout, lane, wish, settings, WAIT_SECONDS)
    except TransferDropped:
        transfers.finish(layout)
        raise
    assert made is not None
    transfers.finish(layout)
    return made


def killed(rig: Rig, layout: Layout, settings: Settings, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, death, _ = MOMENTS[moment]
    with monkeypatch.context() as patch, pytest.raises(Crash):
        if isinstance(place, str):
            patch.setattr(f"{place}.{name}", death)
        else:
            patch.setattr(place, name, death)
        command(rig, layout, settings)
    # A dead process's lease is taken over.
    rig.clock.now += rig.policy.lease + 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_transfer_whose_command_was_killed_is_made_once_when_it_is_asked_again(
    rig: Rig, layout: Layout, settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    killed(rig, layout, settings, moment, monkeypatch)
    assert command(rig, layout, settings).amount == 7
    assert transfers.pending(layout) is None
    assert rig.chain.executed() == {"deposit-7": 1}
    # The next one with the same words is another.
    rig.clock.now += 1
    command(rig, layout, settings)
    assert rig.chain.executed() == {"deposit-7": 2}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_transfer_that_is_weeks_old_is_not_begun_any_more_and_says_so(
    rig: Rig, layout: Layout, settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    killed(rig, layout, settings, moment, monkeypatch)
    signed = rig.store.highest_nonce(rig.id) is not None
    rig.clock.now += WEEKS
    if signed:
        # Its nonce makes it happen once, whenever that is.
        assert command(rig, layout, settings).amount == 7
        assert rig.chain.executed() == {"deposit-7": 1}
        return
    with pytest.raises(TransferDropped, match="if you still want it"):
        command(rig, layout, settings)
    assert transfers.pending(layout) is None
    assert rig.chain.executed() == {}


@pytest.mark.parametrize("moment", [moment for moment, (*_, known) in MOMENTS.items() if known])
def test_a_transfer_that_the_lanes_file_has_lost_is_not_sent_again(
    rig: Rig, layout: Layout, settings: Settings, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    killed(rig, layout, settings, moment, monkeypatch)
    rig.chain.mine()
    before = dict(rig.chain.executed())
    wish = transfers.pending(layout)
    assert wish is not None
    rig.store = MemoryStore(rig.clock)
    if not wish.handed:
        # It died between two writes: nothing was sent.
        assert before == {}
        return
    with pytest.raises(TransferDropped, match=r"lane\.db does not know it"):
        command(rig, layout, settings)
    assert transfers.pending(layout) is None
    assert rig.chain.executed() == before


def test_a_machine_that_starts_weeks_later_does_not_send_what_waited_in_its_lane(
    rig: Rig, layout: Layout, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(rig, layout, settings, "the wish says so, nothing is signed", monkeypatch)
    rig.clock.now += WISH_SECONDS
    rig.step(2)
    assert rig.chain.executed() == {}
    with pytest.raises(TransferDropped, match="time in which it was to be sent is over"):
        command(rig, layout, settings)
    assert send._OVERDUE.endswith("if you still want it")


@pytest.mark.parametrize("changed", [{"chain_id": 1}, {"begun_at": 10.0**10}])
def test_a_wish_of_another_chain_or_of_the_future_is_dropped(
    rig: Rig, layout: Layout, settings: Settings, changed: dict[str, Any]
) -> None:
    wish = replace(transfers.begin(layout, TRANSFER, rig.id.chain_id, rig.clock()), **changed)
    with pytest.raises(TransferDropped, match=r"on chain 1\b|never sent"):
        transfers.carry_out(layout, rig.lane, wish, settings, WAIT_SECONDS)
    assert rig.chain.executed() == {}
