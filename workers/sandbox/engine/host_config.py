"""A container's spec as parameters of Docker's API: the one place where limits and confinement become parameters."""

from __future__ import annotations

from typing import Any

import docker
import docker.types

from protocol.results.computed import OUTPUT_FOLDER
from protocol.results.environment import INPUT_FOLDER
from workers.sandbox.handed import LAUNCHER
from workers.sandbox.network.bridge import NETWORK, listed_network
from workers.sandbox.profile import TMP_PART, NetworkAccess
from workers.sandbox.spec import (
    FILE_BYTES,
    LABEL_WALLET,
    LOG_FILE_BYTES,
    OOM_SCORE,
    OPEN_FILES,
    OWN_KERNEL_PIDS,
    PIDS,
    SHARED_MEMORY_BYTES,
    ContainerSpec,
)

#: A name server that the packet filter refuses: without one, Docker would give containers the machine's own. An address
#: for documentation (RFC 5737).
NO_NAME_SERVER = "192.0.2.1"
_NETWORKS = {NetworkAccess.PUBLIC: NETWORK, NetworkAccess.NONE: "none", NetworkAccess.OPEN: "default"}


def host_config(api: docker.APIClient, spec: ContainerSpec) -> dict[str, Any]:
    """`HostConfig` of the container."""
    sandbox = spec.sandbox
    names = [docker.types.Mount("/etc/resolv.conf", spec.resolv_conf, type="bind", read_only=True)]
    launchers = [] if spec.handed is None else [spec.handed.launcher]
    tmp = f"size={spec.limits.memory_bytes // TMP_PART},mode=1777,nosuid,nodev"
    return api.create_host_config(
        # Not `binds`: their text is cut at colons, and a folder that the engine does not see would be made anew.
        mounts=[
            docker.types.Mount(INPUT_FOLDER, spec.inputs, type="bind", read_only=not spec.writes_inputs),
            docker.types.Mount(OUTPUT_FOLDER, spec.outputs, type="bind"),
            *(names if spec.resolv_conf else []),
            *(docker.types.Mount(LAUNCHER, path, type="bind", read_only=True) for path in launchers),
            *(docker.types.Mount(path, path, type="bind") for path in spec.sockets),
        ],
        devices=[f"{path}:{path}:rwm" for path in spec.devices] or None,
        network_mode=_network(spec),
        extra_hosts=_extra_hosts(spec),
        # With an allow list all names are in /etc/hosts.
        dns=[NO_NAME_SERVER] if sandbox.network is NetworkAccess.LISTED else None,
        runtime=sandbox.runtime,
        read_only=sandbox.read_only,
        tmpfs={"/tmp": tmp} if sandbox.read_only else None,  # noqa: S108 # the container's
        cap_drop=["ALL"],
        cap_add=list(sandbox.capabilities),
        security_opt=["no-new-privileges"],
        mem_limit=spec.limits.memory_bytes,
        # Equal to memory: no swap on top.
        memswap_limit=spec.limits.memory_bytes,
        nano_cpus=spec.limits.nano_cpus,
        pids_limit=PIDS if sandbox.runtime is None else OWN_KERNEL_PIDS,
        device_requests=[_gpus(spec.gpus)] if spec.gpus else None,
        ipc_mode="private",
        shm_size=SHARED_MEMORY_BYTES,
        oom_score_adj=OOM_SCORE,
        ulimits=[
            docker.types.Ulimit(name="core", soft=0, hard=0),
            docker.types.Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
            docker.types.Ulimit(name="fsize", soft=FILE_BYTES, hard=FILE_BYTES),
        ],
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": str(LOG_FILE_BYTES), "max-file": "2"}),
    )


def _extra_hosts(spec: ContainerSpec) -> list[str] | None:
    """Lines of the container's /etc/hosts; None if it shares another container's network, and so its file."""
    if spec.network_of is not None:
        return None
    pinned = [line for each in spec.pins for line in each.lines]
    return [*pinned, *(f"{name}:127.0.0.1" for name in spec.names)] or None


def _network(spec: ContainerSpec) -> str:
    """The name of the Docker network that the container joins."""
    if spec.network_of is not None:
        return f"container:{spec.network_of}"
    return _NETWORKS.get(spec.sandbox.network) or listed_network(spec.labels[LABEL_WALLET])


def _gpus(ids: tuple[str, ...]) -> docker.types.DeviceRequest:
    """As `docker run --gpus device=…` asks for them."""
    return docker.types.DeviceRequest(driver="nvidia", device_ids=list(ids), capabilities=[["gpu"]])
