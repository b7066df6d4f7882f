"""A partition of `bench chaos` holds up one program's connections to one server, and nobody else's."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import pytest

from bench.chaos.relay import Relays
from tests.waiting import ample, wait_until

#: A program that sends each line it is given to a port, and says what comes back.
TALKER = """
import socket, sys
line = None
for word in sys.stdin:
    # Not before it has something to say: the relays must know its pid by then.
    line = line or socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    line.sendall(word.encode())
    print(line.recv(100).decode(), end="", flush=True)
"""
#: Seconds in which a held word would have come back many times over.
HELD_SECONDS = 0.5


class Talker:
    """One such program, in a session of its own, and the words that came back."""

    def __init__(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TALKER, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.heard: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def await_word(self, word: str) -> None:
        wait_until(lambda: word in self.heard, 5, what=f"the answer to {word}")

    def hears_nothing(self) -> bool:
        before = len(self.heard)
        threading.Event().wait(HELD_SECONDS)
        return len(self.heard) == before

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(ample(5))
        self._thread.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(line.strip())


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve(peer: socket.socket) -> None:
            with peer, suppress(OSError):
                while chunk := peer.recv(100):
                    peer.sendall(chunk)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def talkers() -> Iterator[dict[str, Talker]]:
    made: dict[str, Talker] = {}
    yield made
    for talker in made.values():
        talker.stop()


@pytest.fixture
def relays(talkers: dict[str, Talker]) -> Iterator[Relays]:
    with Relays(lambda: {name: talker.process.pid for name, talker in talkers.items()}).running() as running:
        yield running


@pytest.fixture
def talk(relays: Relays, echo: int, talkers: dict[str, Talker]) -> Callable[[str], Talker]:
    port = relays.open("server", echo)

    def start(name: str) -> Talker:
        talkers[name] = Talker(port)
        return talkers[name]

    return start


def test_only_the_held_program_hears_nothing_and_later_hears_all(relays: Relays, talk: Callable[[str], Talker]) -> None:
    held, other = talk("worker-1"), talk("worker-2")
    for talker in (held, other):
        talker.say("before")
        talker.await_word("before")
    relays.hold("worker-1", "server")
    held.say("while held")
    other.say("meanwhile")
    other.await_word("meanwhile")
    assert held.hears_nothing()
    relays.release("worker-1", "server")
    held.await_word("while held")


def test_a_new_connection_of_a_held_program_is_taken_and_answered_once_released(
    relays: Relays, talk: Callable[[str], Talker]
) -> None:
    relays.hold("worker-1", "server")
    held = talk("worker-1")
    held.say("first")
    assert held.hears_nothing()
    relays.release("worker-1", "server")
    held.await_word("first")


def test_a_program_held_at_one_server_reaches_the_others(relays: Relays, talk: Callable[[str], Talker]) -> None:
    relays.hold("worker-1", "another server")
    free = talk("worker-1")
    free.say("word")
    free.await_word("word")
