"""The members of a cluster on this machine: an address, a folder and a group of processes for each.

    member      1            2            3
    address     127.0.0.2    127.0.0.3    127.0.0.4     the same port on each
    folder      <part>/1     <part>/2     <part>/3
    group       port*10+1    port*10+2    port*10+3     where the stack is run by root; see `partition`

    sharded     1 config     2 shard-1    3 shard-2    4 router       each folder by its name, no group
    address     127.0.0.5    127.0.0.6    127.0.0.7    127.0.0.1      the same port on each

A single server has the address 127.0.0.1, the folder <part> and no group. Linux answers on all of 127.0.0.0/8.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Addresses of a cluster's members: with three, any one may be missing.
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
#: Their numbers.
NUMBERS = tuple(range(1, 1 + len(HOSTS)))
#: What a sharded MongoDB consists of: (folder, address, what MongoDB calls its role).
SHARDED = (
    ("config", "127.0.0.5", "configsvr"),
    ("shard-1", "127.0.0.6", "shardsvr"),
    ("shard-2", "127.0.0.7", "shardsvr"),
    ("router", "127.0.0.1", "router"),
)
#: Folders of members, of either kind.
FOLDERS = (*map(str, NUMBERS), *(folder for folder, *_ in SHARDED))
#: Group ids of one port's members: more than any, so that two ports never share a group.
_GROUPS = 10


@dataclass(frozen=True, slots=True)
class Member:
    """Where one server runs. `number`: from 1, 0 for a single server. `group`: of its processes; None: our own.
    `role`: of a server of a sharded MongoDB.
    """

    number: int
    host: str
    folder: Path
    group: int | None = None
    role: str = ""

    def command(self, words: Sequence[str | Path]) -> list[str | Path]:
        """The command that runs `words` in the member's group."""
        return [*in_group(self.group), *words]


def single(folder: Path) -> Member:
    """The one server of a part that is no cluster."""
    return Member(0, "127.0.0.1", folder)


def of_cluster(folder: Path, port: int) -> tuple[Member, ...]:
    """The members of the cluster under `folder` whose servers listen on `port`."""
    return tuple(
        Member(number, host, folder / str(number), own_group(port, number))
        for number, host in zip(NUMBERS, HOSTS, strict=True)
    )


def of_sharded(folder: Path) -> tuple[Member, ...]:
    """The servers of the sharded MongoDB under `folder`: config server, shards, router."""
    return tuple(Member(number, host, folder / name, role=role) for number, (name, host, role) in enumerate(SHARDED, 1))


def own_group(port: int, number: int) -> int | None:
    """The group of the `number`th program of those that belong to `port`; None unless we are root, who alone may give
    a program another one.
    """
    return port * _GROUPS + number if os.geteuid() == 0 else None


def in_group(group: int | None) -> list[str | Path]:
    """The beginning of a command whose processes are to be in this group; they keep our user and its files."""
    return [] if group is None else ["setpriv", "--regid", str(group), "--clear-groups", "--"]
