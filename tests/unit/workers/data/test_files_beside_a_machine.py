"""What root's commands write beside the machine of another user: files that the machine itself can open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from protocol.types import Wallet
from protocol.wire import BrokerAccess, Session
from workers.control import ask_to_drain
from workers.data.layout import Layout, layout_of
from workers.pool.session import SessionFile

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")

USER, GROUP = 12345, 23456
ACCESS = BrokerAccess(
    host="broker.example",
    port=5671,
    tls=True,
    vhost="pool",
    username="w",
    password="secret",
    exchange="w",
    compute_queue="w",
    tx_queue="w.tx",
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """The folders of a machine that is that user's."""
    layout = layout_of(tmp_path, Wallet("0x" + "ab" * 20))
    layout.make()
    for path in (layout.root, *layout.root.rglob("*")):
        os.chown(path, USER, GROUP)
    return layout


def owners(folder: Path) -> set[tuple[int, int]]:
    """Whose the files in it are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return {(path.stat().st_uid, path.stat().st_gid) for path in files}


def test_a_lock_a_session_and_a_wish_are_the_machines(layout: Layout) -> None:
    with layout.lock("transfer", wait=False) as held:
        assert held
    session = Session(token="t", expires_at=1, broker=ACCESS)
    SessionFile(layout, lambda: session).renew(None)
    ask_to_drain(layout, None)
    assert owners(layout.root) == {(USER, GROUP)}
    # A session of the machine's own that is replaced.
    SessionFile(layout, lambda: session).renew("t")
    assert owners(layout.root) == {(USER, GROUP)}
