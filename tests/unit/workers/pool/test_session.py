"""The session file that all processes of a machine share."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from protocol.errors import NotSignedIn
from protocol.wire import BrokerAccess, Session
from workers.data.layout import Layout
from workers.pool.session import SessionFile


def session(number: int) -> Session:
    broker = BrokerAccess(
        host="h",
        port=1,
        tls=False,
        vhost="v",
        username="u",
        password=f"password-{number}",
        exchange="e",
        compute_queue="c",
        tx_queue="t",
    )
    return Session(token=f"token-{number}", expires_at=1, broker=broker)


class Pool:
    """Counts sign-ins."""

    def __init__(self) -> None:
        self.count = 0

    def sign_in(self) -> Session:
        self.count += 1
        return session(self.count)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "worker")
    made.make()
    return made


def test_without_a_session_nothing_is_pretended(layout: Layout) -> None:
    with pytest.raises(NotSignedIn):
        SessionFile(layout, Pool().sign_in).current()


def test_a_refused_token_is_renewed_once_however_many_processes_find_it_refused(layout: Layout) -> None:
    pool = Pool()
    one, two = SessionFile(layout, pool.sign_in), SessionFile(layout, pool.sign_in)
    refused = one.renew(None).token
    assert two.current().token == refused
    assert one.renew(refused).token == two.renew(refused).token == "token-2"
    assert pool.count == 2
    assert one.current().broker.password == "password-2"


def test_only_its_owner_can_read_the_session_and_it_is_not_shown(layout: Layout) -> None:
    found = SessionFile(layout, Pool().sign_in).renew(None)
    assert stat.S_IMODE(layout.session.stat().st_mode) == 0o600
    assert "token-1" not in repr(found)
    assert "password-1" not in repr(found)
