"""Answers Flower's inspect commands about a worker machine, from what is known without asking the machine.

Flower asks a worker by Celery's remote control, which machines do not have (they are strangers to each other, and who
can ask can also shut down): each machine's page would be a wait, then "Unknown worker". So the answer is given here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.app.control import Control

from config import topology
from protocol.types import Wallet

#: Shown in place of process ids and the like.
NOTE = "Worker machine: no remote control. Its row under Workers counts its tasks and leads to them."


def prepare_for_flower(app: Celery) -> None:
    """Have Flower use a connection per request, without confirmations, and answer itself what it asks of machines.

    Flower asks all workers on many threads at a time. With a pool of confirmed connections the threads wait for each
    other for ever, and so do its pages and a SIGTERM (seen).
    """
    app.conf.update(broker_pool_limit=0, broker_transport_options={})
    app.control_cls = f"{__name__}:{MachineControl.__name__}"
    # It warns of every worker that does not answer remote control; worker machines never do.
    logging.getLogger("flower.inspector").setLevel(logging.CRITICAL)


class MachineControl(Control):
    """Celery's remote control, which answers itself what is asked of one worker machine."""

    def broadcast(self, command: str, *args: Any, **options: Any) -> Any:
        """Send a command as Celery does; if it asks one worker machine, answer here from what is known
        of the machine.
        """
        wallet = _machine(options.get("destination"))
        if wallet is None or not options.get("reply"):
            return super().broadcast(command, *args, **options)
        return [{topology.compute_queue_name(wallet): machine_facts(command, wallet)}]


def machine_facts(command: str, wallet: Wallet) -> Any:
    """The answer to one of Celery's inspect commands about a machine, in the shape of a worker's own answer."""
    match command:
        case "stats":
            return {"pool": {"implementation": NOTE}, "broker": {}, "total": {}}
        case "active_queues":
            return [_queue(topology.compute_queue_name(wallet)), _queue(topology.tx_queue_name(wallet))]
        case "conf":
            return {}
        case _:
            return []


def _machine(destination: Sequence[str] | None) -> Wallet | None:
    """The machine that a command is for, which Flower names by its compute queue; None if it is for several workers, or
    for one of the scheduler's.
    """
    return topology.wallet_of_queue(destination[0]) if destination and len(destination) == 1 else None


def _queue(name: str) -> dict[str, Any]:
    """A machine's queue, in the form of Celery's `active_queues`."""
    unknown = dict.fromkeys(("exchange", "alias", "queue_arguments", "binding_arguments"))
    return {
        **unknown,
        "name": name,
        "routing_key": name,
        "durable": True,
        "exclusive": False,
        "no_ack": False,
        "auto_delete": False,
    }
