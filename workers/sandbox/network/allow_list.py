"""The hosts that apps may reach and nothing else (SLUICE_APP_DOMAINS), and the addresses that stand for them. Pure.

    setting ──read_hosts──► AllowedHost ──pin, for each container──► PinnedHost ─┬─► the container's /etc/hosts
                                                                                 └─► its label ──► the packet filter

A container has no name server: its names are resolved here, once, and only those addresses get through the filter. What
a name leads to later changes nothing for it (no DNS rebinding), and no question to a name server carries data out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from protocol.errors import BadSetting, RefusedHere
from workers.data.guard import is_public

SETTING: Final = "SLUICE_APP_DOMAINS"
#: Ports of a host that is named without one: HTTP and HTTPS.
PORTS: Final = (80, 443)
#: Hosts in a list: each is asked for at the start of each container, and all of them fit one label and one error.
HOSTS: Final = 32
#: Addresses of one host that are taken, the first by number: what is in a container's /etc/hosts stays readable.
ADDRESSES: Final = 8
#: A host name as certificates and DNS have it (RFC 1123), with at least one dot.
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})+")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT: Final = 65535

#: IPv4 addresses of a host name, as text. Raises OSError.
Resolve = Callable[[str], Iterable[str]]
#: Address and port.
Target = tuple[str, int]


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One host that apps may reach, by TCP."""

    name: str
    ports: tuple[int, ...]

    def __str__(self) -> str:
        if self.ports == PORTS:
            return self.name
        return ",".join(f"{self.name}:{port}" for port in self.ports)


@dataclass(frozen=True, slots=True)
class PinnedHost:
    """One allowed host with the addresses that one container may reach under its name."""

    host: AllowedHost
    addresses: tuple[str, ...]

    @property
    def targets(self) -> list[Target]:
        """What the packet filter lets through for it."""
        return [(address, port) for address in self.addresses for port in self.host.ports]

    @property
    def lines(self) -> list[str]:
        """The host's entries for the container's /etc/hosts, in the form of Docker's API."""
        return [f"{self.host.name}:{address}" for address in self.addresses]


def read_hosts(text: str) -> tuple[AllowedHost, ...]:
    """The hosts of the setting, in its order; empty if it is not set. Raises BadSetting."""
    ports: dict[str, list[int]] = {}
    for word in (word.strip() for word in text.split(",")):
        if not word and not text.strip():
            continue
        name, port = _read_host(word)
        known = ports.setdefault(name, [])
        known.extend(each for each in ([port] if port else PORTS) if each not in known)
    if len(ports) > HOSTS:
        raise _bad(f"it names {len(ports)} hosts, and {HOSTS} are the most")
    return tuple(AllowedHost(name, tuple(sorted(found))) for name, found in ports.items())


def _read_host(word: str) -> tuple[str, int | None]:
    """Host name and port of an entry. Raises BadSetting."""
    if "*" in word:
        raise _bad(f"{word!r} is a wildcard, and each host is resolved by its own name")
    name, colon, port = word.partition(":")
    if "/" in word or (colon and not (_PORT.fullmatch(port) and int(port) <= _LAST_PORT)):
        raise _bad(f"{word!r} is not a host name, or a host name and a port from 1 to {_LAST_PORT}")
    try:
        plain = name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        plain = ""
    if not _NAME.fullmatch(plain) or plain.rpartition(".")[2].isdigit():
        # The last label of no host is a number (RFC 3696): such words are addresses, or meant as such.
        raise _bad(f"{word!r} is not a host name with a dot in it; addresses are not taken")
    return plain, int(port) if colon else None


def _bad(why: str) -> BadSetting:
    """The error for an entry that cannot be used."""
    return BadSetting(
        name=SETTING, why=why, fix="Name hosts separated by commas, e.g. data.example.org,api.example.com:8443."
    )


def pin(hosts: Sequence[AllowedHost], resolve: Resolve) -> tuple[PinnedHost, ...]:
    """Resolve each host now, so that a container keeps these addresses.

    Raises RefusedHere for a name without an address, or with one that is not public.
    """
    if not hosts:
        return ()
    with ThreadPoolExecutor(len(hosts), "resolve") as threads:
        return tuple(threads.map(lambda host: PinnedHost(host, _addresses(host.name, resolve)), hosts))


def _addresses(name: str, resolve: Resolve) -> tuple[str, ...]:
    """The public IPv4 addresses of a host. Raises RefusedHere."""
    try:
        found = {ipaddress.IPv4Address(text) for text in resolve(name)}
    except (OSError, ValueError) as error:
        raise RefusedHere(why=f"{SETTING}: {name} cannot be resolved ({error})") from error
    if not found:
        raise RefusedHere(why=f"{SETTING}: {name} has no IPv4 address")
    for address in sorted(found):
        if not is_public(address):
            # One private address among public ones is how a guard gets walked around: refuse the name.
            raise RefusedHere(why=f"{SETTING}: {name} leads to {address}, which is not an address of the internet")
    return tuple(str(address) for address in sorted(found)[:ADDRESSES])


def label_of(pins: Iterable[PinnedHost]) -> str:
    """The value of a container's label that says what its packet filter lets through."""
    return ",".join(f"{address}:{port}" for each in pins for address, port in each.targets)


def targets_of(labels: Iterable[str]) -> list[Target]:
    """All targets that these labels let through together; parts that are no target are left out."""
    found: set[tuple[ipaddress.IPv4Address, int]] = set()
    for label in labels:
        for word in label.split(","):
            address, _, port = word.partition(":")
            if _PORT.fullmatch(port) and int(port) <= _LAST_PORT:
                try:
                    found.add((ipaddress.IPv4Address(address), int(port)))
                except ValueError:
                    continue
    return [(str(address), port) for address, port in sorted(found)]


def words(hosts: Iterable[AllowedHost]) -> str:
    """The hosts as SLUICE_APP_DOMAINS names them, normalized."""
    return ",".join(map(str, hosts))


def answered(pins: Sequence[PinnedHost], answers: Mapping[Target, bool]) -> str:
    """Which of the hosts answered from inside a container, in words. `answers`: whether each target answered."""
    tried = [(str(each.host), any(answers.get(target, False) for target in each.targets)) for each in pins]
    silent = [name for name, heard in tried if not heard]
    return f"no answer of {', '.join(silent)}" if silent else "each of them answered"
