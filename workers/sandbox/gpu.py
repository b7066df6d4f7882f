"""A GPU of its own for each app that asks for one. Containers' labels at the engine say which has which GPU, so that
no restart of the worker forgets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from protocol.errors import EngineTrouble, NoSuchContainer
from protocol.types import Wallet
from workers.data.layout import Layout
from workers.sandbox.engine.container import Engine
from workers.sandbox.spec import LABEL_GPUS

#: Held from the choice of a GPU until the engine has a container with it.
_LOCK = "gpus"
#: States of a container that uses nothing any more; one that was made and not started will.
_ENDED = ("exited", "dead", "removing")


@contextmanager
def free_gpu(engine: Engine, layout: Layout, wallet: Wallet, gpus: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the id of a GPU that no container of this machine has; make the container before the block ends.

    Raises EngineUnavailable, also while all GPUs are in use: a container that was just killed may still have one.
    """
    with layout.lock(_LOCK, wait=True):
        taken = _in_use(engine, wallet)
        free = next((gpu for gpu in gpus if gpu not in taken), None)
        if free is None:
            raise EngineTrouble(what="Docker", why=f"all GPUs of SLUICE_GPUS ({', '.join(gpus)}) are in use")
        yield (free,)


def _in_use(engine: Engine, wallet: Wallet) -> set[str]:
    """Ids of GPUs that containers of this wallet have which have not ended."""
    taken: set[str] = set()
    for _, container in engine.containers_of(wallet):
        with suppress(NoSuchContainer):
            found = engine.inspect(container)
            labels = (found.get("Config") or {}).get("Labels") or {}
            if (found.get("State") or {}).get("Status") not in _ENDED:
                taken.update(str(labels.get(LABEL_GPUS, "")).split(","))
    return taken
