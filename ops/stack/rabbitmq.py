"""RabbitMQ as a node of our own: own data, ports, cookie and port mapper; Debian's system service is left alone.

    port      AMQP                 port + 2  Erlang distribution (never the default, AMQP + 20000, which collides)
    port + 1  management API, UI   port + 3  epmd, the port mapper: ours too, so that nothing is left behind
    port + 5  AMQP with TLS        port + 4  Prometheus metrics

Virtual hosts and our user come from definitions that the node loads as it boots: no step is needed once it listens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx

from config.http_client import http_client
from config.whole_files import write_whole
from ops.stack import ports, tools
from ops.stack.process import Process, Program
from protocol.errors import MissingTool

#: Ports of one node, in a row from the AMQP port.
PORTS = 6
#: Which of them is the port mapper's, and which that of the listener with TLS.
_MAPPER, _TLS = 3, 5
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
#: Folder of the certificates, in the node's own.
_CERTIFICATES = "tls"
#: Spinning schedulers would take CPU from the workers on a small machine.
_CALM = "+sbwt none +sbwtdcpu none +sbwtdio none"
#: The distribution listens on loopback as everything else does.
_LOCAL = "-kernel inet_dist_use_interface {127,0,0,1}"


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
        """Management API and user interface."""
        return api_url(self.port)

    def stop(self) -> None:
        """End the node cleanly, then its port mapper."""
        self.process.stop(timeout=STOP_SECONDS)
        self.port_mapper.stop()


def api_url(port: int) -> str:
    """Management API of the stack's own node whose AMQP port is `port`."""
    return f"http://127.0.0.1:{port + 1}"


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
    from ops.stack import certificates  # noqa: PLC0415 # 40 ms to import, which no other command should pay

    folder = folder.absolute()
    binary, _ = server()
    # A node that runs reads new ones by itself.
    certificates.ensure(folder / _CERTIFICATES, _hosts())
    definitions = json.dumps(_definitions(user, password, vhosts), indent=1)
    configuration = _configuration(folder, port)
    mapper = Program(
        "epmd",
        [_epmd(), "-port", str(port + _MAPPER), "-address", "127.0.0.1"],
        folder / "epmd",
        env={"HOME": str(folder)},
    )
    node = Program("RabbitMQ", [binary], folder, _environment(folder, port), configuration + definitions + _PLUGINS)

    def prepare() -> None:
        mine = mapper.find()
        for offset in range(PORTS):
            if mine is None or offset != _MAPPER:
                ports.require_free(port + offset, part="RabbitMQ", setting="SLUICE_STACK_RABBITMQ_PORT")
        write_whole(folder / "rabbitmq.conf", configuration)
        write_whole(folder / "enabled_plugins", _PLUGINS)
        write_whole(folder / "definitions.json", definitions, mode=0o600)
        mapped()

    def mapped() -> Process:
        return mapper.ensure(lambda: ports.answers(port + _MAPPER), seconds=60, before_start=lambda: None)

    folder.mkdir(parents=True, exist_ok=True)
    with http_client(api_url(port), auth=(user, password), timeout=5.0) as client:
        # The AMQP listener opens last of all, after plugins and definitions.
        process = node.ensure(
            lambda: ports.answers(port) and ports.answers(tls_port(port)) and _healthy(client),
            seconds=seconds,
            before_start=prepare,
        )
    return RabbitMQ(port, user, password, process, mapped())


def ready(api: str, user: str, password: str) -> bool:
    """Whether the node behind this management API is up, lets us in and has no alarm."""
    with http_client(api, auth=(user, password), timeout=5.0) as client:
        return _healthy(client)


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/api/health/checks/alarms").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _hosts() -> tuple[str, ...]:
    """What this machine is called by those who may use its certificate."""
    name = platform.node()
    return ("localhost", "127.0.0.1", "::1", *([name] if name.isascii() and name not in {"", "localhost"} else []))


def _epmd() -> str:
    found = shutil.which("epmd")
    if found is None:
        raise MissingTool(tool="epmd", why="Erlang's port mapper is not on PATH", fix="apt-get install erlang-base.")
    return found


def _environment(folder: Path, port: int) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": _NODE,
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(folder / "node.pid"),
        "RABBITMQ_DIST_PORT": str(port + 2),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_CALM} {_LOCAL}",
        # Else a node that cannot start leaves its dump in the folder it was started from.
        "ERL_CRASH_DUMP": str(folder / "crash.dump"),
        # Settings of the system's own node must not reach ours.
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "ERL_EPMD_PORT": str(port + _MAPPER),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # The start script then becomes the node instead of staying its parent: one pid to signal.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _configuration(folder: Path, port: int) -> str:
    """`rabbitmq.conf`: loopback only, limits as tried on RabbitMQ 3.10."""
    lines = {
        "listeners.tcp.default": f"127.0.0.1:{port}",
        "listeners.ssl.default": f"127.0.0.1:{tls_port(port)}",
        "ssl_options.cacertfile": ca_file(folder),
        "ssl_options.certfile": folder / _CERTIFICATES / "cert.pem",
        "ssl_options.keyfile": folder / _CERTIFICATES / "key.pem",
        "ssl_options.versions.1": "tlsv1.3",
        "ssl_options.versions.2": "tlsv1.2",
        # Workers prove who they are by their password.
        "ssl_options.verify": "verify_none",
        "ssl_options.fail_if_no_peer_cert": "false",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": port + 1,
        "prometheus.tcp.ip": "127.0.0.1",
        "prometheus.tcp.port": port + 4,
        "load_definitions": folder / "definitions.json",
        "log.console": "true",
        "log.console.level": "warning",
        # Seconds; and channels of one connection, which no client of ours comes near.
        "heartbeat": 60,
        "channel_max": 64,
        # Bytes: a task's message is a few KB; a stranger cannot fill memory with large ones.
        "max_message_size": 1_048_576,
        # Milliseconds a delivery may stay unacknowledged: the longest category runs for 10 hours, and two to be stored.
        "consumer_timeout": 43_200_000,
        "disk_free_limit.absolute": "500MB",
        "tcp_listen_options.backlog": 1024,
        "tcp_listen_options.nodelay": "true",
        # Bytes: keeps the memory of a connection small, there are thousands of workers.
        "tcp_listen_options.sndbuf": 32_768,
        "tcp_listen_options.recbuf": 32_768,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items())


def _definitions(user: str, password: str, vhosts: tuple[str, ...]) -> dict[str, object]:
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
