"""A host on the internet, for the tests: a network namespace behind a cable of this machine."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

from tests.waiting import ample
from workers.sandbox.network import egress
from workers.sandbox.rehearsal import METADATA

BANNER = "reached"
#: Addresses that no other test process of this machine uses.
_OWN = f"{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
#: A range of the open internet from which nothing is announced; here, two ends of a cable.
HERE, INTERNET, PRIVATE = f"25.{_OWN}.1", f"25.{_OWN}.2", f"10.{_OWN}.2"
#: Another address of the host on the internet.
ELSEWHERE = f"26.{_OWN}.2"
#: Port of name servers.
DNS_PORT = 53


def run_command(*command: str) -> str:
    """What a command prints; it must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ip(*words: str, thread: int | None = None) -> str:
    """Run `ip`, in the network namespace of a thread."""
    inside = ["nsenter", f"--net=/proc/{thread}/ns/net"] if thread else []
    return run_command(*inside, "ip", *words)


def leave_network() -> None:
    """Give this thread, and what it starts, an empty network namespace of its own."""
    assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0


def greet(server: socket.socket) -> None:
    """Send BANNER to whoever connects, until the socket is closed."""

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with closing(peer):
                peer.sendall(f"{BANNER}\n".encode())

    threading.Thread(target=serve, daemon=True).start()


def end(server: socket.socket) -> None:
    """Close a server of `greet`."""
    # Wakes the thread that accepts.
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@contextmanager
def outside_world(name_servers: list[socket.socket] | None = None) -> Iterator[dict[str, egress.Target]]:
    """A host behind a cable of this machine, with an address on the internet, a private one and that of metadata.

    `name_servers` gets the socket of its UDP port DNS_PORT.
    A network namespace of one thread: it goes with this process whatever happens.
    """
    ready, over = threading.Event(), threading.Event()
    made: list[int] = []
    servers: list[socket.socket] = []

    def live() -> None:
        leave_network()
        made.append(threading.get_native_id())
        servers.append(socket.create_server(("0.0.0.0", METADATA[1])))
        if name_servers is not None:
            name_servers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            name_servers[0].bind(("0.0.0.0", DNS_PORT))
        ready.set()
        over.wait()

    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(ample(20))
    link, far = f"t{os.getpid()}", f"u{os.getpid()}"
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", far, "netns", str(made[0]))
        ip("addr", "add", f"{HERE}/30", "dev", link)
        ip("link", "set", link, "up")
        for address in (f"{INTERNET}/30", f"{ELSEWHERE}/32", f"{PRIVATE}/32", f"{METADATA[0]}/32"):
            ip("addr", "add", address, "dev", far, thread=made[0])
        ip("link", "set", far, "up", thread=made[0])
        ip("route", "add", "default", "via", HERE, thread=made[0])
        for address in (ELSEWHERE, PRIVATE):
            ip("route", "add", f"{address}/32", "dev", link)
        ip("route", "add", f"{METADATA[0]}/32", "dev", link, "metric", str(os.getpid() + 1))
        greet(servers[0])
        yield {
            "internet": (INTERNET, METADATA[1]),
            "private range": (PRIVATE, METADATA[1]),
            "metadata": METADATA,
        }
    finally:
        end(servers[0])
        for each in name_servers or ():
            each.close()
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        over.set()
        thread.join()
