"""What scheduler and worker say to each other, as JSON, with every size and shape checked on receipt.

    worker ── HTTPS ──► API      Challenge, Login, Ping, Report, result upload (zip body; an enclave's with the headers
                                 of protocol.results.attestation)
    API    ──────────► worker    PoolConfig, Session, Pong, Stored
    scheduler ─ AMQP ─► worker   Assignment (argument of `compute`), then task ids only

Unknown keys of a request are refused: a stranger's extra key is a mistake or an attack. A worker ignores those of an
answer (`workers.pool`): a pool of a later release may have added them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from protocol.poco.tags import Framework
from protocol.results.error_result import printable

HexId = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{64}$")]
HexAddress = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-f]{40}$")]
#: Random name of one installation, so that two machines with one wallet can be told apart.
MachineId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
#: Whole numbers as every part can store them: MongoDB, SQLite and JSON readers of other languages take 8 bytes.
Whole = Annotated[int, Field(ge=0, lt=2**63)]
#: Exit codes are a byte on Linux and 32 bits elsewhere.
ExitCode = Annotated[int, Field(ge=-(2**31), lt=2**32)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: Text that the other side shows in a terminal.
Printable = Annotated[str, AfterValidator(printable)]
#: A host's name or address: no more of a URL than that, and nothing that drives a terminal.
Host = Annotated[str, StringConstraints(max_length=255, pattern=r"^[\w.:-]+$")]
HexSignature = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{130}$")]

#: Version of what scheduler and worker say to each other, in this header of a login; without it, it is 1.
#: 2: a machine goes on with an assignment by itself (before: by publishing the next link of a Celery chain).
PROTOCOL, PROTOCOL_HEADER = 2, "Sluice-Protocol"

#: Text by which a refused sign-in says that another machine works with the wallet.
SECOND_MACHINE = "another machine"

#: Characters of stdout and of stderr kept: what iExec Core 9.3 keeps.
LOG_TAIL_CHARACTERS = 100_000


#: Slots of one machine at most, whatever its pool allows: more are a mistake, not a machine.
SLOTS_LIMIT = 256
#: Slots of one machine at most that a pool takes unless it says otherwise.
MOST_SLOTS = 64
#: What a pool promises and allows unless it says otherwise: bytes of memory per slot, ...
MEMORY_PER_SLOT = 2 * 2**30
#: ... bytes of one dataset or input file,
DOWNLOAD_BYTES = 4 * 2**30
#: ... and bytes of a result.
RESULT_BYTES = 256 * 2**20
#: Bytes of an app's image that every worker takes at most, unpacked: large ones for GPUs have 10 GiB.
IMAGE_BYTES = 16 * 2**30
#: Bytes that an app may write outside /iexec_out on every worker, e.g. to unpack packages.
SCRATCH_BYTES = 16 * 2**30


class Wire(BaseModel):
    """Base of all wire messages: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerNode(Wire):
    """One node of the pool's RabbitMQ."""

    host: Host
    port: Port

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PoolConfig(Wire):
    """`GET /config`: what a worker must know of the pool before it signs in."""

    chain_id: Whole
    hub: HexAddress
    workerpool: HexAddress
    scheduler: HexAddress
    rpc_url: Printable
    ws_url: Printable | None
    block_time: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    ipfs_gateway: Printable
    version: Printable
    #: Limits of every task, alike on all machines: only what breaks the pool's own limit is the task's failure.
    #: Bytes of memory an app gets.
    memory_per_slot: Annotated[int, Field(gt=0, lt=2**63)] = MEMORY_PER_SLOT
    #: Bytes of one dataset or input file at most.
    download_max_bytes: Annotated[int, Field(gt=0, lt=2**63)] = DOWNLOAD_BYTES
    #: Bytes of a result at most, all its files together.
    max_result_bytes: Annotated[int, Field(gt=0, lt=2**63)] = RESULT_BYTES
    #: Where workers reach RabbitMQ, so that a machine can check the connection before it signs in.
    amqp_host: Host | None = None
    amqp_port: Port | None = None
    amqp_tls: bool = False
    #: The other nodes, where RabbitMQ is a cluster.
    amqp_others: tuple[BrokerNode, ...] = ()
    #: nRLC that a replicate of the pool's newest deals locks at least (0: one has trust 1, which locks nothing); None:
    #: no deal yet.
    least_stake: Whole | None = None
    #: Slots that a machine may sign in with at most.
    most_slots: Annotated[int, Field(ge=1, le=SLOTS_LIMIT)] = MOST_SLOTS
    #: The secret service that knows the challenges in this pool's assignments: machines ask it for the sessions of
    #: their TDX enclaves. None: the pool serves none of that kind.
    sms_url: Printable | None = None
    #: The same for each kind of enclave that the pool serves, by name; empty: `sms_url` is that of every kind.
    sms_urls: dict[str, Printable] = {}

    def secret_service(self, kind: Framework) -> str | None:
        """The secret service for enclaves of a kind; None: the pool serves none of that kind."""
        return self.sms_urls.get(kind.value) if self.sms_urls else self.sms_url

    @property
    def broker_nodes(self) -> tuple[BrokerNode, ...]:
        """All nodes of RabbitMQ; none if the pool says where they are only at sign-in."""
        if self.amqp_host is None or self.amqp_port is None:
            return ()
        return (BrokerNode(host=self.amqp_host, port=self.amqp_port), *self.amqp_others)


class ChallengeRequest(Wire):
    """`POST /workers/challenge`."""

    wallet: HexAddress


class Challenge(Wire):
    """EIP-712 typed data to sign (`protocol.signin`), and when it stops being valid (Unix seconds)."""

    nonce: HexId
    expires_at: Whole
    typed_data: dict[str, object]


class Capabilities(Wire):
    """What a worker machine offers. Truthful numbers: matching relies on them, the chain punishes lies."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(printable)]
    version: Annotated[str, StringConstraints(max_length=32), AfterValidator(printable)]
    slots: Annotated[int, Field(ge=1, le=SLOTS_LIMIT)]
    cpus: Annotated[int, Field(ge=1, le=4096)]
    memory_bytes: Whole
    #: Tags the machine can serve, 32 bytes; a task fits if its tag's bits are a subset.
    tag: HexId


class Login(Wire):
    """`POST /workers/login`."""

    wallet: HexAddress
    nonce: HexId
    signature: HexSignature
    capabilities: Capabilities
    #: Which machine signs in; another one with this wallet is refused while this one is at work.
    machine: MachineId | None = None
    #: Sign in although another machine with this wallet seems to be at work, and cut that one off.
    take_over: bool = False
    #: A code of the pool's operator, where the pool takes new machines by invitation.
    invite: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(None, repr=False)


class BrokerAccess(Wire):
    """A worker's own RabbitMQ user: it can read its two queues, nothing else."""

    host: Host
    port: Port
    tls: bool
    vhost: str
    username: str
    password: str = Field(repr=False)
    exchange: str
    compute_queue: str
    tx_queue: str
    #: The other nodes, where RabbitMQ is a cluster; any of them will do.
    others: tuple[BrokerNode, ...] = ()

    @property
    def nodes(self) -> tuple[BrokerNode, ...]:
        """All nodes, the one to try first before the others."""
        return (BrokerNode(host=self.host, port=self.port), *self.others)


class Session(Wire):
    """Answer to a login. The token goes into `Authorization: Bearer …`."""

    token: str = Field(repr=False)
    expires_at: Whole
    broker: BrokerAccess


class Ping(Wire):
    """`POST /workers/ping`: this machine is alive and holds these tasks (journal rows not yet forgotten)."""

    tasks: Annotated[list[HexId], Field(max_length=1024)]
    machine: MachineId | None = None


class Pong(Wire):
    """What the pool says of the pinged tasks. `forget`: they are over; `abort`: stop them at once; `unknown`: the pool
    has no record of giving them to this worker (its database was lost or restored), so the worker goes on by itself.
    """

    forget: list[HexId]
    abort: list[HexId]
    unknown: list[HexId] = []
    #: Another machine has signed in with this wallet: this one must stop.
    superseded: bool = False


class Leave(Wire):
    """`POST /workers/leave`: this machine stops now and should get no new task."""

    machine: MachineId | None = None


class WorkerModel(BaseModel):
    """`GET /workers/{wallet}`: a worker machine as the scheduler knows it; `seen_at` in Unix seconds."""

    model_config = ConfigDict(frozen=True)

    wallet: str
    name: str
    version: str
    slots: Whole
    #: Slots that it may use now: a newcomer few of those that it has. None: the pool does not say.
    usable: Whole | None = None
    busy: Whole
    #: Silent for too long.
    lost: bool
    #: It said that it stops.
    away: bool = False
    banned: bool
    seen_at: float


class Step(StrEnum):
    """What a worker reports of a task. A hint: the chain is believed first."""

    STARTED = "started"  #: the assignment was taken up
    COMPUTED = "computed"  #: the container ended and the digest is known; frees the slot
    CONTRIBUTED = "contributed"  #: contribute (or contributeAndFinalize) was sent
    REVEALED = "revealed"  #: reveal was sent
    UPLOADED = "uploaded"  #: the result is stored
    FAILED = "failed"  #: this worker will not contribute; frees the slot


class Report(Wire):
    """`POST /tasks/{task_id}/reports`."""

    step: Step
    #: PoCo cause or a short reason, for FAILED.
    cause: Annotated[str, StringConstraints(max_length=200), AfterValidator(printable)] | None = None
    exit_code: ExitCode | None = None
    stdout: Annotated[str, StringConstraints(max_length=LOG_TAIL_CHARACTERS)] | None = None
    stderr: Annotated[str, StringConstraints(max_length=LOG_TAIL_CHARACTERS)] | None = None
    #: How long the step took where it was done. Reports overtake each other: the pool's own times may show nothing
    #: between two of them. For Flower; nothing is decided by it.
    seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class ResultLink(Wire):
    """Where the result is: `results` of finalize is this as JSON."""

    storage: Literal["ipfs", "ethereum"]
    location: Printable


class Stored(Wire):
    """Answer to `PUT /tasks/{task_id}/result`."""

    link: ResultLink
    digest: HexId


class Dataset(Wire):
    """Dataset of a deal: contract, where its bytes are, and their sha256 (both from the chain)."""

    address: HexAddress
    url: str
    checksum: HexId


class Mode(StrEnum):
    """How the result reaches the chain."""

    VOTE = "vote"  #: contribute, then reveal once consensus is on chain
    SOLO = "solo"  #: trust 1: contributeAndFinalize, no stake locked


class Assignment(Wire):
    """All a worker needs to do one replicate; the argument of its Celery task `compute`."""

    task_id: HexId
    deal_id: HexId
    index: Whole
    mode: Mode
    trust: Whole
    tag: HexId
    wallet: HexAddress
    app: HexAddress
    #: On-chain multiaddr text, e.g. `docker.io/iexechub/x:1.0`.
    image: str
    #: On-chain app checksum (32 bytes); informative for images built locally.
    image_checksum: HexId
    dataset: Dataset | None
    #: `deal.params` as on chain; parsed by `protocol.results.params` on the worker.
    params: str
    callback: HexAddress
    bot_first: Whole
    bot_size: Whole
    #: Execution limit in seconds: the category's workClockTimeRef.
    category_seconds: Whole
    #: Unix seconds.
    contribution_deadline: Whole
    final_deadline: Whole
    #: EIP-191 signature by the workerpool owner (protocol.poco.authorization), 65 bytes.
    authorization: HexSignature
    #: Whose key signs the result inside the enclave (protocol.poco.enclave); zero: no enclave.
    enclave_challenge: HexAddress
    #: The same wallet's signature over all of the above (protocol.assignment); None from an older scheduler.
    signature: HexSignature | None = None
