"""What single settings may hold: addresses, names, counts. Types for pydantic, patterns for its validators."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from protocol.wire import SLOTS_LIMIT

#: An Ethereum address, 20 bytes.
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
Address = Annotated[str, Field(pattern=rf"^{_ADDRESS.pattern}$")]
#: An ENS name as ENSIP-1 has it: labels with dots between. What is in a label, web3.py's ENS checks.
ENS_NAME = re.compile(r"[^\s./:@]{1,63}(\.[^\s./:@]{1,63}){1,10}")


def is_address(text: str) -> bool:
    """Whether this is an address in hex, in any case; else it is a name where a setting may hold one."""
    return _ADDRESS.fullmatch(text) is not None


#: What Docker takes as the beginning of a container's name, and Celery as a node name.
CONTAINER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: A GPU as NVIDIA's container runtime knows it: a number or a UUID.
GPU = "[A-Za-z0-9][A-Za-z0-9-]{0,63}"
#: A whole number from 1.
COUNT = re.compile(r"0*[1-9][0-9]{0,8}")


def _names_a_contract(value: str) -> str:
    """Refuse a setting that is neither an address nor an ENS name."""
    if not is_address(value) and not ENS_NAME.fullmatch(value):
        raise ValueError("give an address (0x and 40 hex digits) or an ENS name (pool.example.eth)")
    return value


def _names_a_container(name: str) -> str:
    """Refuse a name that Docker would not take for a container."""
    if not CONTAINER_NAME.fullmatch(name):
        raise ValueError("use up to 64 letters, digits, '_', '.' and '-', the first a letter or digit")
    return name


def _counts_containers(value: int | str) -> int | str:
    """Refuse a number of slots out of range."""
    if value != "auto" and not (COUNT.fullmatch(str(value)) and int(value) <= SLOTS_LIMIT):
        raise ValueError(f"give a number from 1 to {SLOTS_LIMIT}, or auto")
    return value


#: A contract's address or ENS name.
ContractName = Annotated[str, AfterValidator(_names_a_contract)]
#: Part of a container's name.
MachineName = Annotated[str, AfterValidator(_names_a_container)]
#: Containers at a time, or `auto`.
Slots = Annotated[int | Literal["auto"], BeforeValidator(_counts_containers)]
