"""The apps' own network at a Docker engine: one bridge, without a way from one container to another.

One for all tasks of an engine, so that starting a task makes and removes no network: with inter-container traffic off
and the packet filter, a container on it is as alone as on a bridge of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import requests

from protocol.errors import BadSetting
from workers.sandbox.network import packet_filter
from workers.sandbox.network.allow_list import Target
from workers.sandbox.network.egress import is_own_address
from workers.sandbox.network.packet_filter import BRIDGE_PREFIX, LISTED_PREFIX, cannot_filter

#: Name of the network, one per engine.
NETWORK: Final = "sluice-apps"
#: Hex digits in a bridge's name; the kernel takes 15 characters in all.
_DIGITS: Final = 8
_BRIDGE_OPTION: Final = "com.docker.network.bridge.name"
#: The kernel's switch for iptables on bridged packets.
_BRIDGED: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
#: What Docker says of a start on a network that was removed, e.g. by `docker network prune`.
GONE: Final = f"network {NETWORK} not found"
#: Seconds for a network that another worker makes to be there, and between two checks: the engine refuses a second one
#: from the moment on at which the first one's bridge has a name.
_APPEARS_SECONDS, _LOOK_SECONDS = 10.0, 0.05
#: The networks of machines with an allow list of domains: one per engine and wallet.
LISTED: Final = "sluice-listed-"


@dataclass(frozen=True, slots=True)
class AppNetwork:
    """The apps' network, as the engine describes it."""

    bridge: str
    #: The engine's machine on this network.
    gateway: str
    #: Whether the packet filter limits an app's connections.
    limited: bool = False


def bridge_name(data_root: str) -> str:
    """Name of the bridge of the engine with this data folder: engines that share one machine need one each."""
    return BRIDGE_PREFIX + hashlib.sha256(data_root.encode()).hexdigest()[:_DIGITS]


def listed_network(wallet: str) -> str:
    """Name of the network of this wallet's apps, if it has an allow list."""
    return f"{LISTED}{wallet[2:].lower()}"


def _listed_bridge(data_root: str, wallet: str) -> str:
    """The name of the network bridge of a wallet's apps that have an allow list."""
    return LISTED_PREFIX + hashlib.sha256(f"{data_root}\0{wallet.lower()}".encode()).hexdigest()[:_DIGITS]


def network_options(bridge: str) -> dict[str, str]:
    """Options of Docker's bridge driver for the apps' network."""
    return {_BRIDGE_OPTION: bridge, "com.docker.network.bridge.enable_icc": "false"}


def read_network(found: Mapping[str, Any], bridge: str, name: str | None = None) -> AppNetwork:
    """The network from its inspection. Raises BadSetting if it is not as `network_options` has it."""
    options = found.get("Options") or {}
    wanted = network_options(bridge)
    if found.get("Driver") != "bridge" or found.get("EnableIPv6") or wanted.items() - options.items():
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"the engine has a network {name or NETWORK} that is not the worker's own",
            fix=f"Remove it with `docker network rm {name or NETWORK}`.",
        )
    return AppNetwork(bridge, str(found["IPAM"]["Config"][0]["Gateway"]))


def make(api: docker.APIClient, listed: str | None = None) -> AppNetwork:
    """The apps' network, made unless it is there; only inside `engine_errors`. Raises BadSetting.

    `listed`: a wallet with an allow list, whose network is made instead.
    """
    root, name = str(api.info()["DockerRootDir"]), listed_network(listed) if listed else NETWORK
    bridge = _listed_bridge(root, listed) if listed else bridge_name(root)
    try:
        found = api.inspect_network(name)
    except docker.errors.NotFound:
        try:
            api.create_network(
                name, driver="bridge", options=network_options(bridge), check_duplicate=True, enable_ipv6=False
            )
        except docker.errors.APIError as error:
            # Another worker makes it: its name or its bridge is taken.
            if error.status_code not in {requests.codes.conflict, requests.codes.forbidden}:
                raise
        found = _await(api, name)
    return read_network(found, bridge, name)


def _await(api: docker.APIClient, name: str) -> Any:
    """A network's inspection once it is there. Raises NotFound."""
    deadline = time.monotonic() + _APPEARS_SECONDS
    while True:
        try:
            return api.inspect_network(name)
        except docker.errors.NotFound:
            if time.monotonic() > deadline:
                raise
        time.sleep(_LOOK_SECONDS)


def confine(host: str, network: AppNetwork, targets: Iterable[Target] | None = None) -> AppNetwork:
    """The apps' network at the engine `host`, its packet filter set. Raises BadSetting if that is not possible.

    `targets`: addresses and ports that are all it lets through; None: the internet.
    """
    if not host.startswith("unix://") or not is_own_address(network.gateway):
        raise cannot_filter("it does not share the network of the engine's machine")
    # First what can be done: apps of an earlier start may still run on a machine that is refused.
    limited = packet_filter.apply() if targets is None else packet_filter.apply_listed(network.bridge, targets)
    if not _filters_bridged():
        raise cannot_filter("packets between containers pass no iptables: the kernel's br_netfilter is off")
    return replace(network, limited=limited)


def _filters_bridged() -> bool:
    """Whether iptables sees packets from one container of a bridge to another; Docker has it so for this network."""
    try:
        return _BRIDGED.read_text().strip() == "1"
    except OSError:
        return False
