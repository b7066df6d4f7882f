"""What takes long says on standard error how far it is, where a person looks; programs get nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chain.watch.audit import Audit, DealPlace
from ops.commands.pool import chain
from protocol.poco.events import BlockRef
from protocol.types import BlockHash, BlockNumber, DealId, Timestamp

BLOCK = BlockHash("0x" + "11" * 32)
STEPS = [
    Audit(
        BlockNumber(first),
        BlockRef(BlockNumber(first + 9), BLOCK, BLOCK, Timestamp(first)),
        missing_deals=() if first else (DealPlace(DealId("0x1"), BlockNumber(3), BLOCK),),
    )
    for first in (0, 10)
]


@pytest.mark.parametrize("terminal", [True, False])
def test_an_audit_of_blocks_shows_a_bar_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")

    def steps() -> Iterator[Audit]:
        yield from STEPS

    assert chain._unclean(steps(), (BlockNumber(0), BlockNumber(19))) == STEPS[:1]
    out, err = capsys.readouterr()
    assert out == ""
    assert ("Comparing blocks" in err) == terminal
    assert ("100%" in err) == terminal
