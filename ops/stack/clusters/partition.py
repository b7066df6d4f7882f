"""Partitions on this machine: all packets of a program that is cut off are dropped, and no connection is closed.

    sends      dropped by the group of the sender's processes (`ops.stack.clusters.members`), whatever the address
    receives   dropped by the address and ports that it listens on

Rules of iptables in the chains INPUT and OUTPUT, each with a comment that names the group. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from protocol.errors import MissingTool

#: Seconds to wait for another iptables that is at work.
_LOCK_SECONDS = "10"
_PROGRAM = "iptables"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a partition. `ports`: those it listens on at `host`, the first and the last."""

    group: int
    host: str
    ports: tuple[int, int]


def rules(side: Side) -> list[tuple[str, ...]]:
    """The chain and the rule, as arguments of iptables, of each rule that cuts this side off. Pure."""
    told = ("-m", "comment", "--comment", _comment(side.group), "-j", "DROP")
    first, last = side.ports
    return [
        ("OUTPUT", "-m", "owner", "--gid-owner", str(side.group), *told),
        ("INPUT", "-d", side.host, "-p", "tcp", "--dport", f"{first}:{last}", *told),
    ]


def rules_of(groups: Collection[int], printed: str) -> list[tuple[str, ...]]:
    """The rules of these groups among those that `iptables -S` has printed, in the form of `rules`. Pure."""
    wanted = {_comment(group) for group in groups}
    lines = (line.replace('"', "").split() for line in printed.splitlines())
    return [tuple(words[1:]) for words in lines if wanted & set(words)]


def cut(side: Side) -> None:
    """Drop what this side sends and is sent from now on. Raises MissingTool."""
    for chain, *rule in rules(side):
        _iptables("-I", chain, *rule)


def heal(groups: Collection[int]) -> None:
    """Let the packets of these groups pass again; nothing to do for one that is not cut off. Raises MissingTool."""
    for chain in ("INPUT", "OUTPUT"):
        for rule in rules_of(groups, _iptables("-S", chain)):
            _iptables("-D", *rule)


def possible() -> bool:
    """Whether this process could have made a partition, or may."""
    return os.geteuid() == 0 and shutil.which(_PROGRAM) is not None


def needs_root(why: str = "this process is not root's") -> MissingTool:
    """The error for a machine that partitions cannot be made on."""
    return MissingTool(tool="A partition", why=why, fix="Partitions need root and Debian's package iptables.")


def _comment(group: int) -> str:
    """The comment by which iptables rules of a partition are found again."""
    return f"sluice-partition-{group}"


def _iptables(*words: str) -> str:
    """Run iptables and return what it prints. Raises MissingTool."""
    program = shutil.which(_PROGRAM)
    if program is None:
        raise needs_root("iptables is not on PATH")
    done = subprocess.run([program, "-w", _LOCK_SECONDS, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise needs_root(" ".join(done.stderr.split()) or "iptables failed")
    return done.stdout
