"""The stack's servers as pools need them: brought up if need be, and crashed on purpose by the fault runs."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops.pool.site import Servers
from ops.stack import stack
from ops.stack.parts import StackPart
from ops.stack.process import Process, find
from ops.stack.stack import StackStep, Watch
from protocol.errors import NotReady

log = structlog.get_logger(__name__)

#: What workers need to know of RabbitMQ beside its port.
PUBLIC = ("SLUICE_AMQP_PUBLIC_HOST", "SLUICE_AMQP_PUBLIC_TLS", "SLUICE_AMQP_CA_FILE")
#: What pools share; each has a chain of its own.
SHARED = (StackPart.MONGODB, StackPart.RABBITMQ, StackPart.DOCKER, StackPart.IPFS)


def bring_up(
    *,
    watch: Watch | None = None,
    tls: bool | None = None,
    clustered: bool | None = None,
) -> Servers:
    """Start the shared servers that do not run yet; their addresses. `tls`, `clustered`: instead of SLUICE_STACK_TLS
    and SLUICE_STACK_CLUSTER.

    Raises MissingTool, PortTaken, NotReady.
    """
    settings, numbers = read_settings(), StackSettings()
    given = {"tls": tls, "cluster": clustered}
    numbers = numbers.model_copy(update={name: value for name, value in given.items() if value is not None})
    running = stack.up(settings, numbers, SHARED, watch or _log_step)
    return from_settings(running.settings, settings)


def from_settings(found: Mapping[str, str], settings: Settings) -> Servers:
    """The servers' addresses, from the `SLUICE_…` variables that the stack exports."""
    amqp = found["SLUICE_AMQP_URL"]
    return Servers(
        mongodb_uri=found["SLUICE_MONGODB_URI"],
        amqp_url=amqp,
        amqp_port=int(found.get("SLUICE_AMQP_PUBLIC_PORT") or urlsplit(amqp).port or 5672),
        amqp_public={name: found[name] for name in PUBLIC if name in found},
        rabbitmq_api=found["SLUICE_RABBITMQ_API"],
        ipfs_api=found["SLUICE_IPFS_API"],
        ipfs_gateway=found.get("SLUICE_IPFS_GATEWAY", settings.ipfs_gateway),
        docker_host=found["SLUICE_DOCKER_HOST"],
    )


def own_process(part: StackPart) -> Process:
    """The process of one of the stack's own servers. Raises NotReady for a server that is not ours, or does not run."""
    folder = _folder(part)
    process = find(part.label, folder / "pid")
    if process is None:
        raise NotReady(part=part.label, seconds=0, log=folder / "log", why="It is not run by our stack.")
    return process


def crash(part: StackPart) -> None:
    """Kill one of the stack's own servers with SIGKILL and start it again.

    Raises NotReady for a server that is not ours.
    """
    own_process(part).stop(how=signal.SIGKILL)
    stack.up(read_settings(), StackSettings(), (part,), _log_step)


def _folder(part: StackPart) -> Path:
    """Where the local stack keeps a server's files."""
    return read_settings().home.absolute() / "stack" / part


def _log_step(step: StackStep) -> None:
    """Log a step of the stack, at debug level."""
    log.debug("Stack step.", action="stack_step", part=str(step.part), phase=step.phase, detail=step.detail)
