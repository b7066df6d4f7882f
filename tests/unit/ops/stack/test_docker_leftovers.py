"""What of this machine counts as left by a killed engine of ours, and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops.stack.servers import docker_leftovers

SOCKET = Path("/somewhere/run/containerd/containerd.sock")


@contextmanager
def running(program: bytes, *words: bytes) -> Iterator[int]:
    """A process that waits, with these words as its command line."""
    body = b"print(flush=True); input()"
    with subprocess.Popen(
        [program, b"-c", body, *words], executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as found:
        assert found.stdin is not None
        assert found.stdout is not None
        found.stdout.readline()
        yield found.pid
        found.stdin.close()


def test_a_shim_is_ours_by_its_containerd_and_only_where_it_sees_the_same_mounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running(b"containerd-shim-runc-v2", b"-address", bytes(SOCKET)) as shim:
        assert docker_leftovers.is_shim(shim, SOCKET)
        assert not docker_leftovers.is_shim(shim, SOCKET.parent)
        monkeypatch.setattr(Path, "samefile", lambda *_: False)
        assert not docker_leftovers.is_shim(shim, SOCKET), "it is in a container with the same paths"
    with running(b"vi", bytes(SOCKET)) as other:
        assert not docker_leftovers.is_shim(other, SOCKET)


def test_a_program_whose_words_are_no_text_is_looked_at_and_left_alone() -> None:
    with running(b"containerd-shim-runc-v2", b"\xff\xfe") as other:
        docker_leftovers.end_containers(SOCKET)
        assert not docker_leftovers.is_shim(other, SOCKET)
        assert Path(f"/proc/{other}").exists()


def test_mounts_below_a_folder_are_named_as_they_are_the_newest_first_and_not_the_folder_itself() -> None:
    mounts = (
        "/dev/sdb1 /a ext4 rw 0 0\noverlay /a/with\\040blank overlay rw 0 0\n"
        "overlay /ab/c overlay rw 0 0\nnsfs /a/b\\134c nsfs rw 0 0\n"
    )
    found = list(docker_leftovers.mounts_below(Path("/a"), mounts))
    assert found == [("nsfs", Path("/a/b\\c")), ("overlay", Path("/a/with blank"))]


def test_a_disk_that_somebody_mounted_for_the_engine_stays(tmp_path: Path) -> None:
    assert docker_leftovers.is_disk("/dev/sdb1", Path("/proc"))
    assert not docker_leftovers.is_disk("overlay", Path("/proc"))
    assert not docker_leftovers.is_disk("/dev/sdb1", tmp_path), "an engine's folder, mounted on itself"
    assert not docker_leftovers.is_disk("/dev/sdb1", tmp_path / "gone")
