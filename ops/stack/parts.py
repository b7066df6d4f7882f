"""The parts of the stack, and for each whether our own server is used, or one that the settings name. Pure.

setting given and not our own address  ──► theirs: used, never started or stopped
else                                   ──► ours, under <home>/stack/<part>
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from config.connections import broker_nodes
from config.redaction import public_url
from config.settings import Settings
from config.values.stack_settings import StackSettings
from ops.stack.clusters import members
from ops.stack.servers import docker, mongodb, rabbitmq


class StackPart(StrEnum):
    """One server of the stack; the value names its folder."""

    MONGODB = "mongodb"  # deals, tasks, intents
    RABBITMQ = "rabbitmq"  # queues of scheduler and workers
    CHAIN = "chain"  # the contracts
    DOCKER = "docker"  # where workers run apps
    IPFS = "ipfs"  # results and datasets

    @property
    def label(self) -> str:
        """The part's name in what commands print, as 'MongoDB'."""
        return _LABELS[self]


_LABELS = {
    StackPart.MONGODB: "MongoDB",
    StackPart.RABBITMQ: "RabbitMQ",
    StackPart.CHAIN: "Chain",
    StackPart.DOCKER: "Docker engine",
    StackPart.IPFS: "IPFS",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose server a part is and where it will be. `settings`: the `SLUICE_…` variables that lead to it."""

    part: StackPart
    ours: bool
    #: Address to show: without credentials.
    endpoint: str
    #: The variable that decided, when it is not ours.
    because: str | None = None
    settings: dict[str, str] = field(default_factory=dict, repr=False)


def choose(part: StackPart, settings: Settings, ports: StackSettings) -> Choice:
    """Whose server this part is. A setting that was given wins, unless it is where our own would be anyway."""
    ours = own(part, settings, ports)
    given = [name for name in _DECIDES[part] if name in settings.model_fields_set]
    theirs = {_variable(name): _plain(settings, name) for name in given}
    if all(ours.settings.get(name) == value for name, value in theirs.items()):
        return ours
    leading = next(iter(theirs))
    return Choice(part, ours=False, endpoint=shown(theirs[leading]), because=leading, settings=theirs)


def own(part: StackPart, settings: Settings, ports: StackSettings) -> Choice:
    """Our own server of this part: its address and the settings that lead there, as far as known before its start."""
    match part:
        case StackPart.MONGODB:
            to = mongodb.router_uri(ports.mongodb_port) if ports.sharded else None
            found = {"SLUICE_MONGODB_URI": to or mongodb.uri(ports.mongodb_port, _hosts(ports))}
        case StackPart.RABBITMQ:
            found = {
                "SLUICE_AMQP_URL": amqp_url(settings, ports.rabbitmq_port, _hosts(ports)),
                "SLUICE_AMQP_PUBLIC_HOST": broker_nodes.SEPARATOR.join(_hosts(ports)),
                "SLUICE_AMQP_PUBLIC_PORT": str(ports.rabbitmq_port),
                "SLUICE_AMQP_PUBLIC_TLS": "false",
                "SLUICE_RABBITMQ_API": broker_nodes.SEPARATOR.join(
                    rabbitmq.api_url(ports.rabbitmq_port, host) for host in _hosts(ports)
                ),
            }
            if ports.tls:
                found["SLUICE_AMQP_PUBLIC_PORT"] = str(rabbitmq.tls_port(ports.rabbitmq_port))
                found["SLUICE_AMQP_PUBLIC_TLS"] = "true"
                found["SLUICE_AMQP_CA_FILE"] = str(rabbitmq.ca_file(settings.home.absolute() / "stack" / part))
        case StackPart.CHAIN:
            found = {
                "SLUICE_RPC_URL": f"http://127.0.0.1:{ports.rpc_port}",
                "SLUICE_WS_URL": f"ws://127.0.0.1:{ports.rpc_port}",
                "SLUICE_CHAIN_ID": str(settings.chain_id),
                "SLUICE_BLOCK_TIME": f"{settings.block_time:g}",
            }
        case StackPart.IPFS:
            found = {
                "SLUICE_IPFS_API": f"http://127.0.0.1:{ports.ipfs_api_port}",
                "SLUICE_IPFS_GATEWAY": f"http://127.0.0.1:{ports.ipfs_gateway_port}",
            }
        case StackPart.DOCKER:
            # Unless the machine's own engine runs, which comes first.
            found = {"SLUICE_DOCKER_HOST": docker.address(settings.home / "stack" / part)}
    return Choice(part, ours=True, endpoint=shown(next(iter(found.values()))), settings=found)


def credentials(settings: Settings) -> tuple[str, str]:
    """User and password of the scheduler in RabbitMQ, from the AMQP address of the settings."""
    address = urlsplit(broker_nodes.amqp_urls(settings)[0])
    return address.username or "sluice", address.password or "sluice"


def amqp_url(settings: Settings, port: int, hosts: Sequence[str]) -> str:
    """AMQP address of our own node, or nodes."""
    user, password = credentials(settings)
    return broker_nodes.SEPARATOR.join(f"amqp://{user}:{password}@{host}:{port}" for host in hosts)


def _hosts(ports: StackSettings) -> tuple[str, ...]:
    """Where our own MongoDB and RabbitMQ are."""
    return members.HOSTS if ports.cluster else ("127.0.0.1",)


def shown(address: str) -> str:
    """An address without user, password and options, for people; of several nodes the first."""
    if address.startswith(("http://", "https://")):
        # Providers put their customers' keys into the path.
        return public_url(address.partition(",")[0].partition(broker_nodes.SEPARATOR)[0].strip()).rstrip("/")
    parts = urlsplit(address.partition(broker_nodes.SEPARATOR)[0])
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}".rstrip("/") if parts.scheme else address


def wanted(names: Collection[str]) -> tuple[StackPart, ...]:
    """The parts named, in the stack's order; all of them if none is."""
    return tuple(part for part in StackPart if not names or part in names)


#: Settings that say where a part is; the first leads.
_DECIDES: dict[StackPart, tuple[str, ...]] = {
    StackPart.MONGODB: ("mongodb_uri",),
    StackPart.RABBITMQ: ("amqp_url", "rabbitmq_api"),
    StackPart.CHAIN: ("rpc_url",),
    StackPart.DOCKER: ("docker_host",),
    StackPart.IPFS: ("ipfs_api", "ipfs_gateway"),
}


def _variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"SLUICE_{name.upper()}"


def _plain(settings: Settings, name: str) -> str:
    """A setting's value as text, a secret's too."""
    value = getattr(settings, name)
    return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
