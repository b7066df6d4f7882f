"""How many containers a machine runs at once: as its operator says, or as many as fit its engine. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workers.sandbox.spec import EngineResources

#: Bytes of the engine's memory for the system, the engine and this machine's own processes: twice what those take
#: beside 16 slots.
RESERVED_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True)
class Slots:
    """A number of slots, and what bounds it, in words."""

    count: int
    bound: str


def set_by_operator(number: int) -> Slots:
    """The slots of a machine whose operator set SLUICE_SLOTS to `number`."""
    return Slots(number, "as SLUICE_SLOTS says")


def at_most_gpus(gpus: int, slots: Slots) -> Slots:
    """The slots, limited to one for each of the `gpus` that the machine offers; as they are if it offers none."""
    return Slots(gpus, "bounded by SLUICE_GPUS, one each") if 0 < gpus < slots.count else slots


def fitting(resources: EngineResources, memory_per_slot: int, most: int) -> Slots:
    """As many slots as the engine has processors and memory for, at least one, and no more than the pool takes.

    `memory_per_slot`: bytes of memory that the pool promises each app. `most`: slots of a machine that the pool takes,
    at least 1; more are refused at sign-in.
    """
    by_memory = (resources.memory_bytes - RESERVED_BYTES) // memory_per_slot
    count = min(resources.cpus, by_memory, most)
    if count < 1:
        return Slots(1, "bounded by the engine's memory, which is short for one")
    if count == most < min(resources.cpus, by_memory):
        return Slots(count, "as many as the pool takes of a machine")
    if count == by_memory < resources.cpus:
        return Slots(count, "bounded by the engine's memory")
    return Slots(count, "bounded by the engine's processors, one each")
