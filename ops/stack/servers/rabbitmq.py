"""RabbitMQ as a node of our own, or three: own data, ports, cookie and port mapper; Debian's service is left alone.

    port      AMQP                 port + 2  Erlang distribution (never the default, AMQP + 20000, which collides)
    port + 1  management API, UI   port + 3  epmd, the port mapper: ours too, so that nothing is left behind
    port + 5  AMQP with TLS        port + 4  Prometheus metrics

The nodes of a cluster have these ports at an address each, and one port mapper, for which the second's and third's
distribution is at port + 6 and port + 7.

Virtual hosts and our user come from definitions that the node loads as it boots: no step is needed once it listens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from config.connections.http_client import http_client
from config.whole_files import write_whole
from ops.stack import ports, tools
from ops.stack.clusters import members
from ops.stack.clusters.members import Member
from ops.stack.process import Process, Program
from ops.stack.servers.broker_sockets import advanced_config
from protocol.errors import MissingTool

#: Ports of one node, in a row from the AMQP port, and of the three of a cluster.
PORTS, CLUSTER_PORTS = 6, 8
#: Which of them are the distribution's, the port mapper's, and that of the listener with TLS.
_DISTRIBUTION, _MAPPER, _TLS = 2, 3, 5
#: Seconds: 4 measured, after a kill too; 9 on a slower machine.
START_SECONDS = 240.0
#: Seconds for a clean end: 6 measured (the management plugin waits 5 for its own statistics).
STOP_SECONDS = 20.0
#: Debian's program, not the one in /usr/sbin, which insists on user root or rabbitmq and then changes user.
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: The last one tells the scheduler when a machine is cut off (`pipeline.broker.presence`).
_PLUGINS = "[rabbitmq_management,rabbitmq_prometheus,rabbitmq_event_exchange].\n"
#: Own host name, so that a machine whose name does not resolve works too.
_NODE = "sluice@localhost"
#: Erlang's file with the secret by which nodes know each other.
_COOKIE = ".erlang.cookie"
#: Folder of the certificates, in the node's own.
_CERTIFICATES = "tls"
#: Spinning schedulers would take CPU from the workers on a small machine.
_CALM = "+sbwt none +sbwtdcpu none +sbwtdio none"
#: Seconds in which nodes of a cluster notice that one does not answer; Erlang's own are 60.
_TICK_SECONDS = 8


@dataclass(frozen=True, slots=True)
class RabbitMQ:
    """A running node."""

    port: int
    user: str
    password: str
    process: Process
    port_mapper: Process

    @property
    def amqp_url(self) -> str:
        """AMQP address without a virtual host."""
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """URL of the management API and user interface."""
        return api_url(self.port)

    def stop(self) -> None:
        """End the node cleanly, then its port mapper."""
        self.process.stop(timeout=STOP_SECONDS)
        self.port_mapper.stop()


def api_url(port: int, host: str = "127.0.0.1") -> str:
    """Management API of the stack's own node whose AMQP port is `port`."""
    return f"http://{host}:{port + 1}"


def tls_port(port: int) -> int:
    """Port with TLS of the stack's own node whose AMQP port is `port`."""
    return port + _TLS


def ca_file(folder: Path) -> Path:
    """The CA that has signed the certificate of the node in `folder`."""
    return folder / _CERTIFICATES / "ca.pem"


def server() -> tuple[Path, str]:
    """(path of the server, where it is from); installs Debian's if it is absent. Raises MissingTool."""
    if not _SERVER.exists():
        tools.debian(
            "rabbitmq-server", program="rabbitmq-server", instead="set SLUICE_AMQP_URL and SLUICE_RABBITMQ_API"
        )
    if not _SERVER.exists():
        raise MissingTool(
            tool="rabbitmq-server",
            why=f"Debian's package has no {_SERVER}",
            fix="Set SLUICE_AMQP_URL and SLUICE_RABBITMQ_API to a RabbitMQ 3.10 or later.",
        )
    return _SERVER, "Debian's rabbitmq-server, as a node of our own"


def start(
    folder: Path,
    port: int,
    *,
    user: str = "sluice",
    password: str = "sluice",  # noqa: S107 the default of the settings too; the node listens on loopback only
    vhosts: tuple[str, ...] = ("core", "pool"),
    seconds: float = START_SECONDS,
) -> RabbitMQ:
    """Start a node, or find it running, and wait until clients can connect.

    `port`: the first of PORTS in a row. `user` is administrator with full rights in `vhosts`.
    Raises PortTaken, NotReady, MissingTool, BadInput.
    """
    alone = members.single(folder.absolute())
    nodes = Nodes(alone.folder, port, user, password, vhosts, (alone,))
    nodes.prepare()
    return RabbitMQ(port, user, password, nodes.start(alone, seconds=seconds), nodes.mapped())


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of one broker under `folder`: a single one or the three of a cluster, with one port mapper.

    All methods raise PortTaken, NotReady, MissingTool, BadInput.
    """

    folder: Path
    port: int
    user: str
    password: str = field(repr=False)
    vhosts: tuple[str, ...]
    nodes: tuple[Member, ...]

    def prepare(self) -> None:
        """Make what all nodes share: folder, certificate (read anew by a node that runs), cookie."""
        from ops.stack import certificates  # noqa: PLC0415 # 40 ms to import, which no other command should pay

        server()
        self.folder.mkdir(parents=True, exist_ok=True)
        certificates.ensure(self.folder / _CERTIFICATES, _hosts(self.nodes))
        if len(self.nodes) > 1:
            cookie = self.folder / _COOKIE
            if not cookie.exists():
                write_whole(cookie, secrets.token_hex(20), mode=0o400)

    def start(self, node: Member, *, seconds: float = START_SECONDS) -> Process:
        """Start one node, or find it running, and wait until clients can connect to it."""
        definitions = json.dumps(_definitions(self.user, self.password, self.vhosts), indent=1)
        configuration = _configuration(self, node)
        program = Program(
            "RabbitMQ",
            node.command([_SERVER]),
            node.folder,
            _environment(self, node),
            configuration + advanced_config() + definitions + _PLUGINS,
        )

        def prepare() -> None:
            """Check that the ports are free, write the node's configuration and start the port mapper. Raises
            PortTaken.
            """
            mine = self._mapper().find()
            for port in {*range(self.port, self.port + PORTS), _distribution_port(self, node)}:
                if port != self.port + _MAPPER or mine is None:
                    ports.require_free(port, part="RabbitMQ", setting="SLUICE_STACK_RABBITMQ_PORT", host=node.host)
            write_whole(node.folder / "rabbitmq.conf", configuration)
            write_whole(node.folder / "advanced.config", advanced_config())
            write_whole(node.folder / "enabled_plugins", _PLUGINS)
            write_whole(node.folder / "definitions.json", definitions, mode=0o600)
            self.mapped()

        node.folder.mkdir(parents=True, exist_ok=True)
        with http_client(api_url(self.port, node.host), auth=(self.user, self.password), timeout=5.0) as client:
            # The AMQP listener opens last of all, after plugins and definitions.
            return program.ensure(
                lambda: (
                    ports.answers(self.port, node.host)
                    and ports.answers(tls_port(self.port), node.host)
                    and _healthy(client)
                ),
                seconds=seconds,
                before_start=prepare,
            )

    def mapped(self) -> Process:
        """The port mapper, started if need be."""
        first = self.nodes[0].host
        return self._mapper().ensure(
            lambda: ports.answers(self.port + _MAPPER, first), seconds=60, before_start=lambda: None
        )

    def _mapper(self) -> Program:
        """Erlang's port mapper, by which the nodes of a cluster find each other."""
        hosts = ",".join(node.host for node in self.nodes)
        command = [_epmd(), "-port", str(self.port + _MAPPER), "-address", hosts]
        return Program("epmd", command, self.folder / "epmd", env={"HOME": str(self.folder)})


def ready(api: str, user: str, password: str) -> bool:
    """Whether the node behind this management API is up, lets us in and has no alarm."""
    with http_client(api, auth=(user, password), timeout=5.0) as client:
        return _healthy(client)


def _healthy(client: httpx.Client) -> bool:
    """Whether the node answers and has no alarm."""
    try:
        return client.get("/api/health/checks/alarms").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _hosts(nodes: Sequence[Member]) -> tuple[str, ...]:
    """The host names and addresses of this machine, for the certificate."""
    name = platform.node()
    own = [node.host for node in nodes if node.number]
    named = [name] if name.isascii() and name not in {"", "localhost"} else []
    return ("localhost", "127.0.0.1", "::1", *own, *named)


def _epmd() -> str:
    """Path of Erlang's port mapper. Raises MissingTool."""
    found = shutil.which("epmd")
    if found is None:
        raise MissingTool(tool="epmd", why="Erlang's port mapper is not on PATH", fix="apt-get install erlang-base.")
    return found


def _node_name(node: Member) -> str:
    """A node's Erlang name."""
    return f"sluice-{node.number}@{node.host}" if node.number else _NODE


def _distribution_port(nodes: Nodes, node: Member) -> int:
    """Port by which the nodes talk to each other."""
    return nodes.port + (_DISTRIBUTION if node.number <= 1 else PORTS + node.number - 2)


def _erlang(node: Member) -> str:
    """Arguments of Erlang: the distribution listens on loopback as everything else does, and in a cluster it also
    connects from the node's own address, by which it can be cut off.
    """
    address = f"{{{node.host.replace('.', ',')}}}"
    words = f"{_CALM} -kernel inet_dist_use_interface {address}"
    if node.number:
        words += f" -kernel inet_dist_connect_options [{{ip,{address}}}]"
    return words


def _environment(nodes: Nodes, node: Member) -> dict[str, str]:
    """Environment variables that a node is started with."""
    folder, port = node.folder, nodes.port
    return {
        # In a cluster all nodes have one cookie.
        "HOME": str(nodes.folder),
        "RABBITMQ_NODENAME": _node_name(node),
        **({"RABBITMQ_USE_LONGNAME": "true"} if node.number else {}),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "node.pid"),
        "RABBITMQ_DIST_PORT": str(_distribution_port(nodes, node)),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _erlang(node),
        # Else a node that cannot start leaves its dump in the folder it was started from.
        "ERL_CRASH_DUMP": str(folder / "crash.dump"),
        # Settings of the system's own node must not reach ours.
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "ERL_EPMD_PORT": str(port + _MAPPER),
        "ERL_EPMD_ADDRESS": node.host,
        # The start script then becomes the node instead of staying its parent: one pid to signal.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _configuration(nodes: Nodes, node: Member) -> str:
    """`rabbitmq.conf`: loopback only, limits as tried on RabbitMQ 3.10."""
    folder, port = node.folder, nodes.port
    lines: dict[str, object] = {
        "listeners.tcp.default": f"{node.host}:{port}",
        "listeners.ssl.default": f"{node.host}:{tls_port(port)}",
        "ssl_options.cacertfile": ca_file(nodes.folder),
        "ssl_options.certfile": nodes.folder / _CERTIFICATES / "cert.pem",
        "ssl_options.keyfile": nodes.folder / _CERTIFICATES / "key.pem",
        "ssl_options.versions.1": "tlsv1.3",
        "ssl_options.versions.2": "tlsv1.2",
        # Workers prove who they are by their password.
        "ssl_options.verify": "verify_none",
        "ssl_options.fail_if_no_peer_cert": "false",
        "management.tcp.ip": node.host,
        "management.tcp.port": port + 1,
        "prometheus.tcp.ip": node.host,
        "prometheus.tcp.port": port + 4,
        "load_definitions": folder / "definitions.json",
        "log.console": "true",
        "log.console.level": "warning",
        # Seconds; and channels of one connection, which no client of ours comes near.
        "heartbeat": 60,
        "channel_max": 64,
        # Bytes: whatever a stranger's request brings along, as a consumer's arguments, is kept while it lasts.
        "frame_max": 16_384,
        # Bytes: a task's message is a few KB; a stranger cannot fill memory with large ones.
        "max_message_size": 1_048_576,
        # Milliseconds a delivery may stay unacknowledged: the longest category runs for 10 hours, and two to be stored.
        "consumer_timeout": 43_200_000,
        "disk_free_limit.absolute": "500MB",
        # Milliseconds after which what a process at rest no longer needs is given back: of thousands of machines nearly
        # all are at rest. RabbitMQ keeps it at a hundredth of the time, however many there are.
        "background_gc_enabled": "true",
        "background_gc_target_interval": 20_000,
    }
    if node.number:
        lines |= _clustered(nodes.nodes)
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _clustered(nodes: Sequence[Member]) -> dict[str, object]:
    """The lines of `rabbitmq.conf` for a cluster."""
    return {
        "cluster_formation.peer_discovery_backend": "classic_config",
        **{f"cluster_formation.classic_config.nodes.{node.number}": _node_name(node) for node in nodes},
        "net_ticktime": _TICK_SECONDS,
        # A node that is cut off stops by itself, and goes on when it sees the others again.
        "cluster_partition_handling": "pause_minority",
        # Else one node, on which the scheduler declares all queues, would lead all of them.
        "queue_leader_locator": "balanced",
    }


def _definitions(user: str, password: str, vhosts: tuple[str, ...]) -> dict[str, object]:
    """RabbitMQ's definitions file: one administrator, and vhosts that are all the administrator's."""
    everything = {"user": user, "configure": ".*", "write": ".*", "read": ".*"}
    names = ("/", *vhosts)
    return {
        "users": [{"name": user, "password_hash": _password_hash(password), "tags": ["administrator"]}],
        "vhosts": [{"name": name} for name in names],
        "permissions": [{**everything, "vhost": name} for name in names],
    }


def _password_hash(password: str) -> str:
    """RabbitMQ's own form: base64 of 4 bytes of salt and SHA-256 of salt and password.

    The salt depends on the password alone, so that the same settings give the same file and the node is left running.
    """
    salt = hashlib.sha256(b"sluice" + password.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
