"""What a deal demands of a machine, as bits of a 32-byte tag.

bit 0    an enclave: the contract wants an enclave challenge and its signature
bit 1-3  which kind: SCONE 0x3, GRAMINE 0x5, TDX 0x9 (the last hexadecimal digit as a whole)
bit 8    a GPU
"""

from __future__ import annotations

from enum import StrEnum

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.types import Hash32

TEE_BIT = 1 << 0
GPU_BIT = 1 << 8
#: Bits of a task for TDX enclaves.
TDX_BITS = (TEE_BIT, 1 << 3)
_FRAMEWORK_MASK = 0xF


class Framework(StrEnum):
    """Kinds of enclave, by the names that iExec Core uses."""

    SCONE = "SCONE"
    GRAMINE = "GRAMINE"
    TDX = "TDX"


#: The same for SGX enclaves, by their kind.
SGX_BITS = {Framework.SCONE: (TEE_BIT, 1 << 1), Framework.GRAMINE: (TEE_BIT, 1 << 2)}
_FRAMEWORKS = {0x3: Framework.SCONE, 0x5: Framework.GRAMINE, 0x9: Framework.TDX}


def make_tag(*bits: int) -> Hash32:
    """The tag with these bits set: `make_tag(TEE_BIT, GPU_BIT)`."""
    value = 0
    for bit in bits:
        value |= bit
    return Hash32(to_hex(value.to_bytes(32, "big")))


def join_tags(*tags: Hash32) -> Hash32:
    """The tag with the bits of all these."""
    return make_tag(*map(_tag_bits, tags))


def framework(tag: Hash32) -> Framework | None:
    """The kind of enclave a tag names; None for a standard task, also if the bits name no kind (iexec-worker 9.2)."""
    return _FRAMEWORKS.get(_tag_bits(tag) & _FRAMEWORK_MASK)


def needs_enclave_signature(tag: Hash32) -> bool:
    """Whether the contract refuses a contribution without enclave challenge: bit 0, whatever the kind."""
    return bool(_tag_bits(tag) & TEE_BIT)


def needs_gpu(tag: Hash32) -> bool:
    """Whether the task asks for a GPU."""
    return bool(_tag_bits(tag) & GPU_BIT)


def fits(task: Hash32, machine: Hash32) -> bool:
    """Whether a machine that offers `machine` can serve a task tagged `task`: every demanded bit is offered."""
    return not _tag_bits(task) & ~_tag_bits(machine)


def _tag_bits(tag: Hash32) -> int:
    """The tag as a number, whose bits are the demands."""
    return int.from_bytes(to_bytes(tag, 32), "big")
