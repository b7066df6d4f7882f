"""The names that an app finds: hosts of an allow list, or name servers for a runtime with a kernel of its own.

Docker's resolver for a container is a socket in that container's network namespace (127.0.0.11). Under gVisor or Kata
an app does not reach it: loopback is its own kernel's. So such an app is given the name servers themselves, by a
resolv.conf of this machine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from config.whole_files import write_whole
from workers.data.layout import Layout
from workers.sandbox.network import listed_apps, name_servers
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.spec import ContainerSpec

#: The file in the machine's folder; every app may read it.
FILE: Final = "resolv.conf"
READABLE: Final = 0o644
#: Servers that a C library reads of the file.
_MOST: Final = 3


def with_names(layout: Layout, spec: ContainerSpec) -> ContainerSpec:
    """The spec with the hosts of its allow list, or with the name servers that its runtime needs; else itself.

    Raises RefusedHere for a host on the list that cannot be resolved, or leads to an address that is not public.
    """
    if spec.sandbox.domains:
        return listed_apps.pinned(spec)
    if spec.sandbox.runtime is None or spec.sandbox.network is not NetworkAccess.PUBLIC:
        return spec
    servers = name_servers.of_containers()[:_MOST]
    if not servers:
        return spec
    path, text = layout.root / FILE, "".join(f"nameserver {server}\n" for server in servers)
    if not path.exists() or path.read_text() != text:
        # Another file in its place: a running app keeps the one that it began with.
        write_whole(path, text, mode=READABLE)
    # Whatever this process's umask is.
    path.chmod(READABLE)
    return replace(spec, resolv_conf=str(path))
