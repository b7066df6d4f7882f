"""The worker's door as programs see it: connections, statuses, and its end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from protocol.types import ZERO_HASH, TaskId
from tests.unit.sms.world import TASK
from tests.unit.workers.enclave.test_door import OTHER, computed, door, signed
from tests.waiting import wait_until
from workers.enclave import door_server
from workers.enclave.door import Door
from workers.enclave.door_server import DoorServer

__all__ = ["door"]


def test_no_door_is_opened_in_this_machines_own_network() -> None:
    # In a container with processes of its own, a container's process has another's number.
    assert door_server.open_listener() is None


@pytest.fixture
def served(door: Door) -> Iterator[tuple[DoorServer, Callable[[], socket.socket]]]:
    """A door's server, and what connects a program to it; called again, another time."""
    listener, other = socket.socketpair()
    server, opened = DoorServer(listener, door), list[socket.socket]()
    # There is always somebody to be taken.
    other.send(b".")
    coming: list[socket.socket] = []
    server.get_request = lambda: (coming.pop(), ("", 0))  # type: ignore[method-assign]

    def act() -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        opened.append(ours)
        coming.append(theirs)
        server.handle_request()
        return ours

    yield server, act
    for each in (*opened, other):
        each.close()
    server.server_close()


def answer(program: socket.socket) -> bytes:
    return b"".join(iter(partial(program.recv, 4096), b""))


def test_a_program_that_opens_many_connections_gets_few_and_the_next_when_one_has_ended(
    door: Door, served: tuple[DoorServer, Callable[[], socket.socket]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, connect = served
    door.file("0xdataset").write_bytes(b"rows")
    many = [connect() for _ in range(16)]
    assert answer(connect()) == b""
    many[0].send(b"GET /files/0xdataset HTTP/1.1\r\n\r\n")
    assert answer(many[0]).endswith(b"\r\n\r\nrows")
    # The first one's thread is about to end.
    found = wait_until(lambda: ask(connect()), 60)
    assert found.endswith(b"\r\n\r\nrows")
    assert capsys.readouterr().err == ""


def test_once_the_door_is_closed_nothing_more_is_written(
    door: Door, served: tuple[DoorServer, Callable[[], socket.socket]]
) -> None:
    server, connect = served
    target, program = door.work.folders.zip, connect()
    head = f"POST /v1/results HTTP/1.1\r\nauthorization: {door.token}\r\ncontent-length: 1000\r\n\r\n"
    program.send(head.encode() + b'{"zip": "' + b"AAAA" * 50)
    wait_until(target.with_name(f"{target.name}.part").exists, 60)
    server.server_close()
    assert [path.name for path in target.parent.iterdir() if path.is_file()] == []


def test_programs_are_answered_with_the_statuses_of_iexecs_worker(
    door: Door, served: tuple[DoorServer, Callable[[], socket.socket]]
) -> None:
    _, connect = served

    def post(path: str, body: bytes, authorization: str = signed()) -> tuple[int, bytes]:
        program = connect()
        head = f"POST {path} HTTP/1.1\r\nauthorization: {authorization}\r\ncontent-length: {len(body)}\r\n\r\n"
        program.send(head.encode() + body)
        head_of_answer, _, content = answer(program).partition(b"\r\n\r\n")
        return int(head_of_answer.split()[1]), content

    cause, causes, others = b'{"cause": "A_CAUSE"}', b'[{"cause": "A_CAUSE"}]', "0x" + "12" * 32
    forged, unsigned = signed(OTHER), "0x"
    for stage in ("pre", "post"):
        said = f"/compute/{stage}/{TASK}/exit-causes"
        assert post(said, causes, forged)[0] == post(said, causes, unsigned)[0] == 401
        assert post(f"/compute/{stage}/{others}/exit-causes", causes)[0] == 404
        assert post(said, b"[]")[0] == post(said, b"")[0] == 400
        # Refused words are none: these are the first. The older path is the same place.
        assert [post(said, causes)[0], post(said, causes)[0]] == [200, 208]
        assert post(f"/compute/{stage}/{TASK}/exit", cause)[0] == 208
    assert post(f"/compute/app/{TASK}/exit-causes", causes)[0] == 404

    for path in (f"/compute/post/{TASK}/computed", f"/iexec_out/{TASK}/computed"):
        assert post(path, computed(), forged)[0] == post(path, computed(), unsigned)[0] == 401
        assert post(path.replace(TASK, others), computed())[0] == 404
        assert post(path, computed(task=TaskId(others)))[0] == 400
        assert post(path, computed(ZERO_HASH))[0] == post(path, computed(key=OTHER))[0] == 401
        assert post(path, computed()) == (200, TASK.encode())
        # It has one.
        assert post(path, computed())[0] == 401
        door.forget()


def ask(program: socket.socket) -> bytes:
    with suppress(OSError):
        program.send(b"GET /files/0xdataset HTTP/1.1\r\n\r\n")
    return answer(program)
