"""Which name servers apps may ask, and whether an app can ask them.

app ──► 127.0.0.11 (Docker's resolver, in the container's network) ──► the engine's name servers, from that network too

So the packet filter has to let those through that the engine gives its containers: the machine's own, unless its
daemon.json or command line names others.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config.whole_files import write_whole
from protocol.errors import BadSetting

#: Where a system keeps its name servers; the second is systemd-resolved's, whose stub Docker passes over.
RESOLV_CONF: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
#: The engine's settings: the list "dns" replaces the machine's name servers.
DAEMON_JSON: Final = Path("/etc/docker/daemon.json")
#: Name servers that a container was found to have; kept as long as the packet filter, until this machine restarts.
LEARNED: Final = Path("/run/sluice-name-servers")
#: Docker's resolver in a container.
RESOLVER: Final = "127.0.0.11"
PORT: Final = 53
#: Seconds for one answer: Docker's resolver asks up to three servers for 4 s each.
ANSWER_SECONDS = 15.0
TRIES: Final = 2
#: Seconds in which nearly every name server answers that is there.
SOON_SECONDS: Final = 3.0
#: Docker's comment on the servers that its resolver asks; those in `host(…)` are asked from the machine's network.
_EXT_SERVERS: Final = re.compile(r"^# ExtServers: \[([^\]]*)\]", re.MULTILINE)
#: DNS's answers (RFC 1035, RFC 2136) of a server that was reached: a name, and no such name.
_REACHED: Final = (0, 3)
_QUERY: Final = struct.Struct(">6H")


def of_resolv_conf(text: str) -> list[str]:
    """IPv4 name servers of a resolv.conf, without loopback addresses: Docker itself asks those, so no
    rule is needed.
    """
    words = [line.split() for line in text.splitlines()]
    return _addresses(each[1] for each in words if len(each) >= 2 and each[0] == "nameserver")


def of_daemon_json(text: str) -> list[str]:
    """IPv4 name servers in the engine's settings (`dns` of its daemon.json); none if the text is not valid."""
    try:
        dns = json.loads(text).get("dns")
    except (ValueError, AttributeError, RecursionError):
        # An engine does not start with such a file.
        return []
    return _addresses(str(each) for each in dns) if isinstance(dns, list) else []


def of_container(resolv_conf: str) -> list[str]:
    """IPv4 name servers that Docker's resolver asks for a container, from the comment in the container's resolv.conf;
    engines before version 25 write none.
    """
    return _addresses(word for found in _EXT_SERVERS.findall(resolv_conf) for word in found.split())


def _addresses(words: Iterable[str]) -> list[str]:
    """The IPv4 addresses among words, without those of this machine."""
    found: dict[str, None] = {}
    for word in words:
        try:
            address = ipaddress.IPv4Address(word)
        except ValueError:
            continue
        if not address.is_loopback:
            found[str(address)] = None
    return list(found)


def allowed() -> list[str]:
    """IPv4 name servers that the packet filter lets apps ask: this machine's, those of the engine's daemon.json, and
    those learned from containers.
    """
    found = [server for path in (*RESOLV_CONF, LEARNED) for server in of_resolv_conf(_text(path))]
    return list(dict.fromkeys([*found, *of_daemon_json(_text(DAEMON_JSON))]))


def of_containers() -> list[str]:
    """IPv4 name servers that the engine gives its containers, as far as this machine knows: what a container was found
    to have, else those of its daemon.json, else this machine's.
    """
    found = [of_resolv_conf(_text(LEARNED)), of_daemon_json(_text(DAEMON_JSON))]
    return next((servers for servers in found if servers), allowed())


def learn(servers: Iterable[str]) -> bool:
    """Allow the name servers of a container from now on; returns whether any of them is new. Raises BadSetting."""
    new = [server for server in servers if server not in allowed()]
    if not new:
        return False
    lines = [f"nameserver {server}\n" for server in dict.fromkeys([*of_resolv_conf(_text(LEARNED)), *new])]
    try:
        write_whole(LEARNED, "".join(lines))
    except OSError as error:
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"the engine's name servers {', '.join(new)} cannot be noted in {LEARNED}: {error.strerror}",
            fix=f'Name them in {DAEMON_JSON} ("dns").',
        ) from error
    return True


def _text(path: Path) -> str:
    """A file's text; nothing if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        # Not there, or not for this process to read.
        return ""


def asked_name(url: str) -> str | None:
    """The host name in a URL if this machine can resolve it by a name server; None otherwise, and for an address."""
    name = urlsplit(url).hostname or ""
    if "." not in name.strip(".") or name.replace(".", "").isdigit():
        return None
    try:
        socket.getaddrinfo(name, None, socket.AF_INET)
    except (OSError, UnicodeError):
        return None
    return name


def answers(name: str, servers: Sequence[str] = (RESOLVER,)) -> bool:
    """Whether one of `servers` (Docker's resolver), asked from this thread's network namespace, answers for `name`: an
    address, or that the name does not exist.
    """
    return any(_asked(name, ANSWER_SECONDS, server) in _REACHED for _ in range(TRIES) for server in servers)


def answers_soon(name: str) -> bool:
    """As `answers`, asked once and for SOON_SECONDS only: for a check that expects no answer."""
    return _asked(name, SOON_SECONDS, RESOLVER) in _REACHED


def _asked(name: str, seconds: float, server: str) -> int | None:
    """The response code of a name server's answer; None if no answer comes in time."""
    number = secrets.randbelow(2**16)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as peer:
        peer.settimeout(seconds)
        try:
            peer.connect((server, PORT))
            peer.send(question(name, number))
            answer = peer.recv(4096)
        except OSError:
            return None
    return response_code(answer, number)


def question(name: str, number: int) -> bytes:
    """A DNS message that asks for a name's IPv4 addresses."""
    labels = name.encode("idna").rstrip(b".").split(b".")
    asked = b"".join(bytes([len(label)]) + label for label in labels)
    return _QUERY.pack(number, 0x0100, 1, 0, 0, 0) + asked + b"\0" + struct.pack(">2H", 1, 1)


def response_code(answer: bytes, number: int) -> int | None:
    """The response code of a DNS message; None if it is no answer to question `number`."""
    if len(answer) < _QUERY.size:
        return None
    found, flags, *_ = _QUERY.unpack_from(answer)
    return flags & 0xF if found == number and flags & 0x8000 else None


def unanswered(name: str, servers: list[str]) -> BadSetting:
    """The error for a machine that resolves `name` while its apps cannot. `servers`: those that apps may ask."""
    known = ", ".join(servers) or "none"
    return BadSetting(
        name="SLUICE_APP_NETWORK",
        why=f"this machine resolves {name}, and an app cannot: the packet filter lets apps ask {known}, and the engine"
        " gives them other name servers, or those do not answer its containers",
        fix=f'Name the servers that containers can ask in {DAEMON_JSON} ("dns": ["…"]), where the worker can read it'
        " (in a container: mount it), restart the engine and start the worker again.",
    )
