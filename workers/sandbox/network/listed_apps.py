"""A machine whose apps reach an allow list of domains and nothing else: its containers' addresses, its packet filter,
and what such a container reaches.

Order for each container: names are resolved, the container is made with them in its label, the filter is filled by the
labels of all the wallet's containers, the container starts. So the filter can be filled again at any time.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from protocol.errors import BadSetting
from protocol.types import Wallet
from workers.data.layout import Layout
from workers.sandbox.engine.container import Engine
from workers.sandbox.network import allow_list, egress, name_servers
from workers.sandbox.network.bridge import AppNetwork
from workers.sandbox.network.egress import Target
from workers.sandbox.spec import ContainerSpec

#: Only one process at a time reads the labels and fills the filter: else an older reading could come last.
LOCK: Final = "app-network"


def resolve(name: str) -> Iterator[str]:
    """IPv4 addresses of a host name, by this machine's name servers. Raises OSError."""
    for *_, address in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM):
        yield str(address[0])


def pinned(spec: ContainerSpec) -> ContainerSpec:
    """The spec with the addresses of the hosts that its sandbox allows; itself, if that has no list.

    Raises RefusedHere for a name that cannot be resolved, or leads to an address that is not public.
    """
    return spec.pinned(allow_list.pin(spec.sandbox.domains, resolve)) if spec.sandbox.domains else spec


def confine(engine: Engine, layout: Layout, wallet: Wallet) -> AppNetwork:
    """Have the packet filter let through what the wallet's containers may reach, and nothing else.

    Raises BadSetting, EngineUnavailable.
    """
    with layout.lock(LOCK, wait=True):
        return engine.confine_apps(wallet)


def look(
    engine: Engine,
    container: str,
    spec: ContainerSpec,
    forbidden: dict[Target, str],
    outside: Target | None,
    asked: str | None,
) -> str | None:
    """Try from inside a container what it can reach; returns that in words, None if this process cannot look into it.

    `forbidden`: targets that it must not reach, with their names; `outside`: an address of the internet that answers
    this machine; `asked`: a name that this machine resolves. Raises BadSetting if it reaches what is not on the allow
    list.
    """
    listed = [target for each in spec.pins for target in each.targets]
    if outside is not None and outside not in listed:
        forbidden = forbidden | {outside: f"{outside[0]}:{outside[1]}, which is not in {allow_list.SETTING}"}
    first = [each.targets[0] for each in spec.pins]
    process = engine.process_of(container)
    found = egress.reached(*process, [*forbidden, *first])
    if found is None:
        return None
    answers = dict(zip([*forbidden, *first], found, strict=True))
    got_through = [words for target, words in forbidden.items() if answers[target]]
    if asked is not None and egress.inside(*process, lambda: name_servers.answers_soon(asked)):
        got_through.append("a name server")
    if got_through:
        raise reached(got_through)
    refused = ["this machine", *(address for address, _ in list(forbidden)[1:]), *(["name servers"] if asked else [])]
    heard = allow_list.answered(spec.pins, answers)
    return f"{only(spec)}; from inside a container, {', '.join(refused)} were refused, and {heard}"


def only(spec: ContainerSpec) -> str:
    """The hosts that apps of a sandbox with an allow list reach, in words."""
    return f"apps reach {allow_list.words(spec.sandbox.domains)} only"


def reached(what: list[str]) -> BadSetting:
    """The error for a machine whose apps reach what they must not."""
    return BadSetting(
        name="SLUICE_APP_NETWORK",
        why=f"an app would reach {' and '.join(what)}, although the packet filter is set",
        fix="Look for rules of iptables, or of nftables, that accept what comes from bridges before it.",
    )
