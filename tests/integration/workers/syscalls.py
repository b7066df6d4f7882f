"""Makes a program that asks the kernel for what an app must not get, and writes what the kernel answered.

A static ELF for x86-64 without a library: each call is seven loads, `syscall` and a store, so no libc, shell or
missing tool decides what is tried. It harms nothing where a call is let through.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: Where the program is loaded, and bytes of its header.
_BASE: Final = 0x400000
_HEADER: Final = 64 + 56
#: Opcodes that load a 64-bit number into rax and the six registers of a system call's arguments.
_LOADS: Final = (b"\x48\xb8", b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
_SYSCALL: Final = b"\x0f\x05"
_STORE_RAX: Final = b"\x48\xa3"
_RDI_FROM_RAX: Final = b"\x48\x89\xc7"

#: An argument: a number, or bytes whose address is passed.
Argument = int | bytes

RDONLY, WRONLY, RDWR, CREAT = 0, 1, 2, 0o100
NEWNS, NEWUSER, NEWNET, NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
#: Numbers of system calls on x86-64.
WRITE, OPEN, EXIT = 1, 2, 60


@dataclass(frozen=True, slots=True)
class Call:
    """One system call."""

    name: str
    number: int
    arguments: tuple[Argument, ...] = ()


def opened(path: str, flags: int) -> Call:
    """Opens a file."""
    return Call(f"open {path}", OPEN, (path.encode() + b"\0", flags, 0o600))


def forbidden(host_pid: int) -> list[Call]:
    """Calls that the kernel has to refuse. `host_pid`: a process of the machine outside the container."""
    data = b"\xff" * 24
    return [
        Call("mount tmpfs", 165, (b"none\0", b"/iexec_in\0", b"tmpfs\0", 0, 0)),
        Call("remount", 165, (b"none\0", b"/sys\0", b"\0", 0x20, 0)),
        Call("umount", 166, (b"/iexec_out\0", 2)),
        Call("fsopen", 430, (b"tmpfs\0", 0)),
        Call("pivot_root", 155, (b"/\0", b"/iexec_out\0")),
        Call("chroot", 161, (b"/iexec_out\0",)),
        Call("unshare mounts", 272, (NEWNS,)),
        Call("unshare users", 272, (NEWUSER,)),
        Call("unshare network", 272, (NEWNET,)),
        Call("unshare processes", 272, (NEWPID,)),
        Call("device null", 133, (b"/iexec_out/null\0", 0o020666, 0x103)),
        Call("device disk", 133, (b"/iexec_out/disk\0", 0o060666, 0xFE00)),
        Call("ptrace of the host", 101, (0x4206, host_pid, 0, 0)),
        Call("read memory of the host", 310, (host_pid, struct.pack("<QQ", _BASE, 8), 1, data, 1, 0)),
        Call("signal to the host", 62, (host_pid, 0)),
        Call("raw socket", 41, (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        Call("packet socket", 41, (17, socket.SOCK_RAW, 0x0300)),
        Call("add_key", 248, (b"user\0", b"sluice\0", b"x\0", 1, -2)),
        Call("request_key", 249, (b"user\0", b"sluice\0", 0, 0)),
        Call("keyctl", 250, (0, -3, 1)),
        Call("bpf", 321, (0, b"\x02\0\0\0\4\0\0\0\4\0\0\0\1\0\0\0" + bytes(112), 128)),
        Call("perf_event_open", 298, (struct.pack("<II", 1, 112) + bytes(104), 0, -1, -1, 0)),
        Call("userfaultfd", 323, (0,)),
        Call("open_by_handle_at", 304, (-100, struct.pack("<Ii", 8, 1) + bytes(8), 0)),
        Call("init_module", 175, (b"\x7fELF", 4, b"\0")),
        Call("delete_module", 176, (b"sluice_none\0", 0o4000)),
        Call("kexec_load", 246, (0, 0, 0, 0)),
        Call("reboot", 169, (0xFEE1DEAD, 672274793, 0)),
        Call("swapoff", 168, (b"/iexec_out\0",)),
        Call("acct", 163, (0,)),
        Call("syslog", 103, (3, data, 24)),
        Call("sethostname", 170, (b"sluice", 6)),
        Call("iopl", 172, (3,)),
        Call("real-time scheduling", 144, (0, 1, struct.pack("<i", 1))),
        Call("real-time disk", 251, (1, 0, 1 << 13)),
        Call("nice", 141, (0, 0, -20)),
        Call("more open files", 160, (7, struct.pack("<QQ", 2**20, 2**20))),
        Call("larger files", 160, (1, struct.pack("<QQ", 2**62, 2**62))),
        Call("more capabilities", 126, (struct.pack("<Ii", 0x20080522, 0), data)),
        *(opened(path, WRONLY | CREAT) for path in ("/iexec_in/new", "/sys/new", "/proc/new")),
        *(
            opened(path, WRONLY)
            for path in (
                "/proc/sysrq-trigger",
                "/proc/sys/kernel/core_pattern",
                "/proc/sys/kernel/modprobe",
                "/proc/sys/vm/drop_caches",
                "/proc/irq/default_smp_affinity",
                "/sys/kernel/uevent_helper",
                "/sys/power/state",
                "/sys/fs/cgroup/release_agent",
                "/sys/fs/cgroup/cgroup.procs",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/release_agent",
                "/sys/fs/cgroup/memory.max",
            )
        ),
        *(
            opened(path, RDONLY)
            for path in (
                "/var/run/docker.sock",
                "/run/docker.sock",
                "/run/containerd/containerd.sock",
                "/dev/mem",
                "/dev/kmem",
                "/dev/kmsg",
                "/dev/vda",
                "/dev/sda",
                "/dev/fuse",
                "/dev/kvm",
                "/dev/loop-control",
                f"/proc/{host_pid}/environ",
            )
        ),
    ]


def program(calls: Sequence[Call], answers: str) -> bytes:
    """An executable that makes these calls one after the other and writes their answers (8 bytes each) to a file."""
    answered = _BASE + 2**20
    wanted = [(call.number, *call.arguments) for call in calls]
    write_to: tuple[Argument, ...] = (OPEN, answers.encode() + b"\0", WRONLY | CREAT, 0o644)
    # Once to learn how long the code is, once with the addresses that follow from it.
    code, data = _assembled(wanted, write_to, answered, at=0)
    code, data = _assembled(wanted, write_to, answered, at=_BASE + _HEADER + len(code))
    size = _HEADER + len(code) + len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADER, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # One segment to read, write and execute, with room for the answers behind it.
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, size, 2**20 + 2**16, 0x1000)
    return ident + header + segment + code + data


def read_answers(content: bytes) -> list[int]:
    """What the kernel answered: at least 0 if it did as asked, else the error's number below 0."""
    return [number for (number,) in struct.iter_unpack("<q", content)]


def _assembled(
    calls: Sequence[tuple[Argument, ...]], write_to: tuple[Argument, ...], answered: int, *, at: int
) -> tuple[bytes, bytes]:
    """Code, and its data, which lies at address `at`."""
    code, data = bytearray(), bytearray()

    def load(words: Sequence[Argument]) -> None:
        for opcode, word in zip(_LOADS, words, strict=False):
            value = at + len(data) if isinstance(word, bytes) else word % 2**64
            code.extend(opcode + struct.pack("<Q", value))
            data.extend(word if isinstance(word, bytes) else b"")

    for number, call in enumerate(calls):
        load((*call, *[0] * (7 - len(call))))
        code.extend(_SYSCALL + _STORE_RAX + struct.pack("<Q", answered + 8 * number))
    load(write_to)
    code.extend(_SYSCALL + _RDI_FROM_RAX)
    code.extend(_LOADS[0] + struct.pack("<Q", WRITE))
    code.extend(_LOADS[2] + struct.pack("<Q", answered) + _LOADS[3] + struct.pack("<Q", 8 * len(calls)) + _SYSCALL)
    load((EXIT, 0))
    code.extend(_SYSCALL)
    return bytes(code), bytes(data)
