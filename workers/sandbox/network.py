"""The apps' own network at a Docker engine: one bridge, without a way from one container to another.

One for all tasks of an engine, so that starting a task makes and removes no network: with inter-container traffic off
and the packet filter, a container on it is as alone as on a bridge of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors
import requests

from protocol.errors import BadSetting
from workers.sandbox import packet_filter
from workers.sandbox.egress import is_own_address
from workers.sandbox.packet_filter import BRIDGE_PREFIX, cannot_filter

#: Name of the network, one per engine.
NETWORK: Final = "sluice-apps"
#: Hex digits in a bridge's name; the kernel takes 15 characters in all.
_DIGITS: Final = 8
_BRIDGE_OPTION: Final = "com.docker.network.bridge.name"
#: The kernel's switch for iptables on bridged packets.
_BRIDGED: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
#: What Docker says of a start on a network that was removed, e.g. by `docker network prune`.
GONE: Final = f"network {NETWORK} not found"


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


def network_options(bridge: str) -> dict[str, str]:
    """Options of Docker's bridge driver for the apps' network."""
    return {_BRIDGE_OPTION: bridge, "com.docker.network.bridge.enable_icc": "false"}


def read_network(found: Mapping[str, Any], bridge: str) -> AppNetwork:
    """The network from its inspection. Raises BadSetting if it is not as `network_options` has it."""
    options = found.get("Options") or {}
    wanted = network_options(bridge)
    if found.get("Driver") != "bridge" or found.get("EnableIPv6") or wanted.items() - options.items():
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"the engine has a network {NETWORK} that is not the worker's own",
            fix=f"Remove it with `docker network rm {NETWORK}`.",
        )
    return AppNetwork(bridge, str(found["IPAM"]["Config"][0]["Gateway"]))


def make(api: docker.APIClient) -> AppNetwork:
    """The apps' network, made unless it is there; only inside `engine_errors`. Raises BadSetting."""
    bridge = bridge_name(str(api.info()["DockerRootDir"]))
    try:
        found = api.inspect_network(NETWORK)
    except docker.errors.NotFound:
        try:
            api.create_network(
                NETWORK, driver="bridge", options=network_options(bridge), check_duplicate=True, enable_ipv6=False
            )
        except docker.errors.APIError as error:
            # Another worker has just made it: its name or its bridge is taken.
            if error.status_code not in {requests.codes.conflict, requests.codes.forbidden}:
                raise
        found = api.inspect_network(NETWORK)
    return read_network(found, bridge)


def confine(host: str, network: AppNetwork) -> AppNetwork:
    """The apps' network at the engine `host`, its packet filter set. Raises BadSetting if that is not possible."""
    if not host.startswith("unix://") or not is_own_address(network.gateway):
        raise cannot_filter("it does not share the network of the engine's machine")
    # First what can be done: apps of an earlier start may still run on a machine that is refused.
    limited = packet_filter.apply()
    if not _filters_bridged():
        raise cannot_filter("packets between containers pass no iptables: the kernel's br_netfilter is off")
    return replace(network, limited=limited)


def _filters_bridged() -> bool:
    """Whether iptables sees packets from one container of a bridge to another; Docker has it so for this network."""
    try:
        return _BRIDGED.read_text().strip() == "1"
    except OSError:
        return False
