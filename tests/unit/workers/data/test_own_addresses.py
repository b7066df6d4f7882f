"""Which addresses end at this machine, by the kernel's word."""

from __future__ import annotations

import socket

import pytest

from workers.data.own_addresses import is_own


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::ffff:127.0.0.1"])
def test_an_address_at_which_this_machine_answers_is_its_own(address: str) -> None:
    assert is_own(address)


# Of documentation (RFC 5737, RFC 3849): nobody's.
@pytest.mark.parametrize("address", ["198.51.100.7", "203.0.113.9", "2001:db8::7"])
def test_anothers_address_is_not_its_own_also_where_no_route_leads_there(address: str) -> None:
    assert not is_own(address)


@pytest.mark.parametrize("answer", [b"", b"x" * 10, bytes(64)])
def test_an_answer_of_the_kernels_that_tells_nothing_makes_no_address_its_own(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(socket.socket, "recv", lambda *_: answer)
    assert not is_own("127.0.0.1")


def test_a_system_that_answers_no_such_question_has_no_address_that_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(socket, "socket", refused)
    assert not is_own("127.0.0.1")
