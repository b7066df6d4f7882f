"""What a Docker engine of ours leaves: its bridge with the rules about it; and if it was killed, containers that run on
under their shims, and their mounts.

Told apart from those of other engines by the address of its containerd, and by the folder; from those of an engine in
a container, which may have the same paths there, by the mounts that a shim sees. A disk that somebody has mounted in
the folder stays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ops.stack.process import find_pid, parent

#: Seconds that a killed process may take to be gone.
_GONE_SECONDS = 10.0
#: Seconds to wait for others who change the packet filter.
_LOCK_SECONDS = "10"
#: How the kernel writes blanks and backslashes in the name of a mount: in octal.
_ESCAPED = re.compile(r"\\([0-7]{3})")


def end_containers(containerd: Path) -> None:
    """Kill the containers whose shims belong to the containerd with its socket at `containerd`, and the shims."""
    shims = {pid for pid in _pids() if is_shim(pid, containerd)}
    containers = [pid for pid in _pids() if parent(pid) in shims]
    # The first process of a container takes all others of it along; its shim would report its end to nobody.
    for pid in [*containers, *shims]:
        left = find_pid("a container's process", pid, word="")
        # It may have ended meanwhile, and its number be another program's.
        if left is None or not (parent(pid) in shims or is_shim(pid, containerd)):
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        left.exits_within(_GONE_SECONDS)


def unmount(folder: Path) -> None:
    """Take away every mount below `folder`, the deepest first, though something may still use it."""
    for source, at in mounts_below(folder, Path("/proc/self/mounts").read_text(errors="surrogateescape")):
        if not is_disk(source, at):
            subprocess.run(["umount", "--lazy", at], capture_output=True, check=False)


def remove_bridge(bridge: str) -> None:
    """Remove the bridge of apps' containers, and what the packet filter has about it. An engine makes both again.

    Else its range of addresses stays taken, or is given to another engine's network, whose packets its rules change.
    """
    if shutil.which("ip") is not None:
        # It may be gone.
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
    if shutil.which("iptables") is None:
        return
    for table in ("nat", "filter"):
        asked = ["iptables", "--wait", _LOCK_SECONDS, "--table", table, "--list-rules"]
        listed = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        left = "".join(f"-D{rule[2:]}\n" for rule in rules_about(bridge, listed))
        if left:
            given = f"*{table}\n{left}COMMIT\n"
            changes = ["iptables-restore", "--wait", _LOCK_SECONDS, "--noflush"]
            subprocess.run(changes, input=given, capture_output=True, text=True, check=False)


def rules_about(bridge: str, listed: str) -> list[str]:
    """Those of the rules that `iptables --list-rules` prints, e.g. `-A FORWARD -i docker0 -j ACCEPT`, that name it."""
    return [line for line in listed.splitlines() if line.startswith("-A ") and bridge in line.split()]


def mounts_below(folder: Path, mounts: str) -> Iterator[tuple[str, Path]]:
    """Source and place of each mount below `folder` in the kernel's list `mounts`, the newest first."""
    for line in reversed(mounts.rstrip("\n").split("\n")):
        source, place = (_ESCAPED.sub(lambda found: chr(int(found[1], 8)), word) for word in line.split(" ")[:2])
        if folder in Path(place).parents:
            yield source, Path(place)


def is_disk(source: str, at: Path) -> bool:
    """Whether what is mounted at `at` from `source` is a disk of its own. An engine mounts its folder on itself too."""
    try:
        return source.startswith("/dev/") and at.stat().st_dev != at.parent.stat().st_dev
    except OSError:
        return False


def _pids() -> Iterator[int]:
    """Processes of this machine, as far as this process sees them."""
    return (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())


def is_shim(pid: int, containerd: Path) -> bool:
    """Whether this process is a shim of the containerd with its socket at `containerd`, and sees the mounts that this
    process sees.
    """
    try:
        program, *words = Path(f"/proc/{pid}/cmdline").read_text(errors="surrogateescape").split("\0")
        if not Path(program).name.startswith("containerd-shim") or str(containerd) not in words:
            return False
        return Path(f"/proc/{pid}/ns/mnt").samefile("/proc/self/ns/mnt")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
