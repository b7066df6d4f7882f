"""All settings, read once from `SLUICE_…` environment variables into one frozen object.

Every field's description is a row of `docs/settings.md` (generated).
Secrets are `SecretStr`: no repr or log shows them.
Ports of the local stack stay below 32768, where the kernel hands out no ephemeral ports.
"""

from __future__ import annotations

import os
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from config.password_files import addresses_with_passwords
from config.values.numbers import Bytes, Days, DaysOrEver, Gwei, Port, Seconds
from config.values.sms_settings import SmsSettings
from config.values.sources import GivenOrEnvironment
from config.values.stack_settings import StackSettings
from config.values.types import GPU, Address, ContractName, MachineName, Slots
from config.values.variables import PREFIX, refuse_unknown, wrong_variable
from protocol import wire


class Settings(GivenOrEnvironment):
    """Settings of every Sluice process; each process uses the part that concerns it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    # -- where things are kept ------------------------------------------------------------------------------------
    home: Path = Field(Path(".sluice"), description="Folder for data, logs, pids and journals.")
    host_name: MachineName | None = Field(
        None,
        description="This host's name in Flower, if not the machine's own; the hosts of one pool have different ones.",
    )

    # -- the chain ------------------------------------------------------------------------------------------------
    chain_id: int = Field(31337, description="Chain id; a node that answers another one is refused.")
    rpc_url: str = Field(
        "http://127.0.0.1:18545",
        # Providers put their customers' keys into the address.
        repr=False,
        description="Ethereum JSON-RPC over HTTP; several nodes separated by commas.",
    )
    ws_url: str | None = Field(None, repr=False, description="JSON-RPC over WebSocket, for new heads. Empty: poll.")
    hub: ContractName | None = Field(None, description="PoCo hub (diamond): its address or ENS name.")
    workerpool: ContractName | None = Field(None, description="The workerpool served: its address or ENS name.")
    ens_registry: Address | None = Field(
        None, description="ENS registry for names. Unset: the chain's own, on Ethereum, Sepolia and Bellecour."
    )
    block_time: Seconds = Field(1.0, description="Seconds between blocks; sets polling and time-outs.")
    start_block: int = Field(0, ge=0, description="First block to read for deals when the database is new.")
    rpc_timeout: Seconds = Field(5.0, description="Seconds to wait for a node's answer.")

    # -- wallet ---------------------------------------------------------------------------------------------------
    keystore: Path | None = Field(None, description="Ethereum V3 keystore file of this process's wallet.")
    keystore_password_file: Path | None = Field(None, description="File with the keystore's password.")
    key_file: Path | None = Field(None, description="File with the raw private key in hex, mode 600.")
    private_key: SecretStr | None = Field(None, description="Raw private key in hex (prefer a file).")

    # -- lane -----------------------------------------------------------------------------------------------------
    lane_max_in_flight: int = Field(16, ge=1, description="Open nonces per wallet (geth guarantees 16).")
    lane_max_queued: int = Field(100_000, ge=1, description="Queued intents per wallet before callers must wait.")
    fee_policy: Literal["fast", "normal", "cheap", "fixed"] = Field("fast", description="How fees are chosen.")
    max_fee_gwei: Gwei | None = Field(
        None,
        description="Never pay more than this per gas, in gwei. Unset: 500 for a scheduler, by its chain for a worker"
        " (docs/guarantees.md, Money of a worker machine).",
    )
    fixed_fee_gwei: Gwei = Field(Decimal(0), description="Fee per gas when fee_policy is fixed, in gwei.")
    max_transaction_gas: int = Field(
        2**24,
        ge=1_000_000,
        description="Most gas that one transaction may ask for; array calls are cut to fit this and a block of the"
        " chain. 2**24 is what Ethereum allows (EIP-7825).",
    )
    keep_balance_wei: int = Field(0, ge=0, description="Wei that stay in the wallet: nothing that takes them is sent.")
    daily_spend_cap_wei: int | None = Field(
        None,
        ge=0,
        description="Most to spend on gas in any 24 hours, in wei, per wallet. Unset: no limit for a scheduler, by its"
        " chain for a worker (docs/guarantees.md, Money of a worker machine).",
    )
    finality_blocks: int = Field(12, ge=1, le=1000, description="Blocks above a transaction's after which it is final.")
    spend_depth: int = Field(
        0,
        ge=0,
        le=64,
        description="Blocks that must lie on top of what justifies a transaction before it is sent; work is prepared"
        " at once. Each machine's own choice, for its own gas and stake. 0: send at the head.",
    )
    state: Literal["latest", "pending"] = Field(
        "latest", description="Whether steps wait for a block (latest) or share it (pending): docs/guarantees.md."
    )
    lane_dry_run: bool = Field(False, description="Say in the log what would be sent, and send nothing.")
    refusal_phrases: str = Field(
        "",
        description="Words of a node's refusals that Sluice does not know: `phrase=kind`, separated by `;`."
        " Kinds: known, nonce_too_low, nonce_too_high, replacement_underpriced, underpriced, insufficient_funds,"
        " fee_too_high, pool_full, busy, fatal, unknown.",
    )
    initialize_batch: int = Field(50, ge=1, le=150, description="Tasks per initializeArray (about 170,000 gas each).")

    # -- stores and broker ----------------------------------------------------------------------------------------
    mongodb_uri: SecretStr = Field(
        SecretStr("mongodb://127.0.0.1:18017/?replicaSet=rs0"), description="MongoDB replica set, with all its members."
    )
    mongodb_password_file: Path | None = Field(None, description="File with the password for SLUICE_MONGODB_URI.")
    mongodb_database: str = Field("sluice", description="Database name.")
    amqp_url: SecretStr = Field(
        SecretStr("amqp://sluice:sluice@127.0.0.1:18672"), description="RabbitMQ, no virtual host; nodes split by `;`."
    )
    amqp_password_file: Path | None = Field(None, description="File with the password for SLUICE_AMQP_URL.")
    amqp_core_vhost: str = Field("core", description="Virtual host of the scheduler's own queues.")
    amqp_pool_vhost: str = Field("pool", description="Virtual host of the worker queues.")
    amqp_public_host: str = Field("127.0.0.1", description="RabbitMQ host for workers; nodes split by `;`: `a;b:5673`.")
    amqp_public_port: Port = Field(18672, description="RabbitMQ port for workers.")
    amqp_public_tls: bool = Field(False, description="Whether workers must use TLS to RabbitMQ.")
    amqp_ca_file: Path | None = Field(None, description="PEM file of the CAs of RabbitMQ. Unset: the system's.")
    rabbitmq_api: str = Field("http://127.0.0.1:18673", description="RabbitMQ management API; nodes split by `;`.")

    # -- results --------------------------------------------------------------------------------------------------
    ipfs_api: str = Field("http://127.0.0.1:18501", description="Kubo RPC API.")
    ipfs_gateway: str = Field(
        "http://127.0.0.1:18580",
        description="IPFS gateway, for requesters too. A worker uses its pool's unless you name one: the pool's may be"
        " at a private address only if SLUICE_API_URL is such an address.",
    )
    worker_ipfs_api: str | None = Field(
        None,
        description="Kubo RPC API of a worker's own node, for trust-1 results that the pool does not take in time.",
    )
    max_result_bytes: Bytes = Field(
        wire.RESULT_BYTES,
        description="Largest result, in bytes. The scheduler's applies to all machines, and a larger result is the"
        " task's failure. A worker that sets less declines what is larger than its own.",
    )
    keep_results_days: Days = Field(
        90.0,
        description="Days that an IPFS node, of the pool or of SLUICE_WORKER_IPFS_API, keeps a result pinned after it"
        " was stored. It is dropped at the node's next clean-up (`ipfs repo gc`).",
    )
    keep_ended_days: DaysOrEver = Field(
        365.0,
        description="Days after a deal's final deadline that its records are kept: tasks, events, transactions. The"
        " ledger then keeps sums of each day in place of single amounts. 0: for ever; at least 7 otherwise.",
    )

    # -- scheduler ------------------------------------------------------------------------------------------------
    api_host: str = Field("127.0.0.1", description="Address the HTTP API listens on.")
    api_port: Port = Field(18300, description="Port the HTTP API listens on.")
    api_url: str = Field("http://127.0.0.1:18300", description="Where workers reach the HTTP API.")
    api_processes: int = Field(1, ge=1, le=64, description="Processes that serve the HTTP API, on one port.")
    operations_host: str = Field(
        "127.0.0.1",
        description="Address of health, metrics (neither asks for a password) and the operator's API: keep it private.",
    )
    operations_port: Port = Field(18301, description="Port that health, metrics and the operator's API listen on.")
    admin_token_file: Path | None = Field(
        None,
        description="File with the token of the operator's API, mode 600; made if absent. Unset: `admin.token` in"
        " SLUICE_HOME.",
    )
    admin_token: SecretStr | None = Field(None, description="The token, not its file: for a laptop.")
    admin_sign_in: Literal["elsewhere", "always"] = Field(
        "elsewhere",
        description="Whether reading on the scheduler's own machine, as the web page does, needs the operator's token"
        " too. `always` if anything on that machine passes requests of others on to the port (nginx, socat, `ssh -g`).",
    )
    admin_url: str | None = Field(
        None,
        description="Where `sluice` reaches the operator's API. Unset: SLUICE_OPERATIONS_PORT of this machine.",
    )
    public_rpc_url: str | None = Field(
        None, description="RPC URL for workers; default: rpc_url (its first), if it holds no path, query or user."
    )
    public_ws_url: str | None = Field(None, description="WebSocket URL for workers; default: ws_url.")
    token_secret_file: Path | None = Field(None, description="File with the API token key; made if absent.")
    pipeline_processes: int = Field(2, ge=1, le=256, description="Processes that handle the pipeline queue.")
    sweep_seconds: Seconds = Field(5.0, description="How often every open task is visited.")
    worker_most_slots: int = Field(
        wire.MOST_SLOTS,
        ge=1,
        le=wire.SLOTS_LIMIT,
        description="Most slots that a worker machine may sign in with; new ones use 2 until they voted.",
    )
    proven_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of its category's time for which a task of trust 2 to 16 waits for busy machines that were"
        " right before, rather than be given to new ones.",
    )
    worker_idle_days: Days = Field(
        7.0,
        description="Days after which a silent machine loses its RabbitMQ user and queues, which its next sign-in makes"
        " again.",
    )
    newcomer_idle_days: Days = Field(1.0, description="The same for machines that were never right on chain.")
    worker_lost_seconds: Seconds = Field(60.0, description="A worker silent for this long gets no new task.")
    enclave_sms_url: str | None = Field(
        None,
        description="The secret service for enclaves, ours or iExec's: the scheduler asks it for challenges, workers"
        " for sessions. One for each kind: `TDX=https://…,SCONE=https://…`. Unset: the pool serves no enclaves.",
    )
    orders_file: Path | None = Field(None, description="What is offered on iExec's market, a TOML or JSON file.")

    # -- who may work ---------------------------------------------------------------------------------------------
    # `sluice enrol policy` changes the first five for a running pool.
    enrolment: Literal["open", "allow", "invite"] = Field(
        "open",
        description="Who may sign in as a worker: every wallet that is not on the deny list (open), only wallets on the"
        " allow list (allow), or those and whoever brings an invite code (invite). See `sluice enrol`.",
    )
    enrolment_least_stake: int = Field(
        0, ge=0, lt=2**63, description="Stake in nRLC, free and locked, that a machine's wallet must have to sign in."
    )
    enrolment_least_score: int = Field(
        0, ge=0, lt=2**31, description="PoCo score that a machine's wallet must have to sign in."
    )
    enrolment_most_machines: int = Field(
        2000,
        ge=0,
        le=100_000,
        description="Most machines at a time; each takes 0.4 MB of RabbitMQ's memory. 0: no limit.",
    )
    enrolment_most_per_address: int = Field(
        256, ge=0, le=100_000, description="The same from one IP address (IPv6: one /64). 0: no limit."
    )
    trusted_proxies: str = Field(
        "127.0.0.1,::1",
        description="Addresses or networks, separated by commas, of proxies in front of the API: from them"
        " `X-Forwarded-For` is believed. Behind a proxy that is not named, all machines seem to have one address.",
    )
    rate_requests: str = Field("1000/second", description="Requests of all kinds from one address.")
    rate_sign_in: str = Field("300/minute", description="Challenges and sign-ins from one address.")
    rate_sign_in_wallet: str = Field("30/minute", description="Sign-ins and sign-offs of one wallet.")
    rate_ping: str = Field("600/minute", description="Pings of one wallet.")
    rate_upload: str = Field("6000/minute", description="Uploads of results by one wallet.")
    rate_logs: str = Field(
        "300/minute",
        description="Requests for what apps printed and for deals, from one address; the former by one wallet, too.",
    )
    api_connections: int = Field(4096, ge=16, le=1_000_000, description="Connections to the API at a time.")
    api_connections_per_address: int = Field(
        1024, ge=4, le=1_000_000, description="The same from one address that is no trusted proxy."
    )
    flower_host: str = Field(
        "127.0.0.1", description="Address Flower listens on. Elsewhere than on loopback it asks for the user `monitor`."
    )
    flower_port: Port = Field(18555, description="Port Flower listens on.")

    # -- worker ---------------------------------------------------------------------------------------------------
    allow_plaintext: bool = Field(
        False,
        description="Let a worker use addresses elsewhere without encryption (`http://`, `ws://`, RabbitMQ without"
        " TLS), which are refused otherwise. Only for a network that you trust.",
    )
    worker_name: MachineName = Field(
        "worker",
        description="Name of this machine in logs, of its containers and in Flower, where it stands as `machine` beside"
        " each of its steps: letters, digits, `_`, `.`, `-`.",
    )
    invite: SecretStr | None = Field(
        None, description="Invite code of the pool's operator, for a pool that takes new machines by invitation."
    )
    most_stake_nrlc: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Most nRLC that the pool's tasks may lock of this machine's deposit at a time; a task that would"
        " lock more is declined. Unset: the deposit itself is the limit.",
    )
    rlc_value_wei: int = Field(
        10**14,
        ge=0,
        description="What one RLC is worth to this machine, in wei of the chain's native token (on Bellecour they are"
        " one). A reveal may cost more than the max fee as long as it costs less than the stake that it saves.",
    )
    slots: Slots = Field(
        "auto",
        description="Containers this machine runs at once. auto: one for each processor of its Docker engine, as far as"
        " the engine's memory holds what the pool promises each app (1 GiB is left free), and no more than the pool"
        f" takes. A number may be as large as the pool takes, {wire.SLOTS_LIMIT} at most.",
    )
    gpus: str = Field(
        "",
        pattern=rf"^({GPU}(,{GPU})*)?$",
        description="GPUs of this machine that apps may use, separated by commas, by NVIDIA's numbers or UUIDs: 0,1."
        " A task that asks for a GPU gets one of them for itself, so the machine has no more slots than GPUs.",
    )
    enclave: Literal["none", "simulated", "tdx", "scone", "gramine"] = Field(
        "none",
        description="Kind of enclave that this machine runs. simulated: the tasks of TDX enclaves without attestation,"
        " so that the machine's owner can read all their secrets; refused unless the chain is a development one."
        " tdx: in a guest of a TDX host. scone, gramine: on SGX. Refused with what is missing.",
    )
    enclave_las: str | None = Field(None, description="Address and port at which containers reach SCONE's LAS.")
    enclave_heap_bytes: Bytes = Field(8 * 2**30, description="Largest heap of an app's SGX enclave, in bytes.")
    docker_host: str | None = Field(None, description="Docker engine, e.g. unix:///var/run/docker.sock.")
    memory_per_slot: Bytes = Field(
        wire.MEMORY_PER_SLOT,
        description="Memory of one container, in bytes. The scheduler's is the pool's promise to all apps:"
        " an app that needs more fails. A worker that sets less declines what runs out of memory; more has no effect.",
    )
    download_max_bytes: Bytes = Field(
        wire.DOWNLOAD_BYTES,
        description="Largest dataset or input file, in bytes. The scheduler's applies to all machines, and a larger"
        " file is the task's failure. A worker that sets less declines what is larger than its own.",
    )
    allow_private_downloads: bool = Field(
        False, description="Allow input files and datasets from private addresses (local stack only)."
    )
    scratch_bytes: Bytes = Field(
        wire.SCRATCH_BYTES,
        description="Bytes that an app may write outside /iexec_out, in its image's folders and volumes. All machines"
        " allow at most the default; more is the app's failure; a worker that sets less declines what writes more.",
    )
    least_free_bytes: Bytes = Field(
        2**30,
        ge=2**30,
        description="Bytes that a worker leaves free on each disk that apps write to, its own folder's and the"
        " engine's: with less free it takes no work, and kills the apps that write there. 1 GiB at least; more where"
        " others need it, e.g. a RabbitMQ on the same disk, which takes no message below a limit of its own.",
    )
    image_registries: str = Field(
        "",
        description="Registries that app images may come from, separated by commas, e.g. `docker.io,ghcr.io`; one"
        " named here may be at a private address. Empty: every public one.",
    )
    registry_credentials_file: Path | None = Field(
        None,
        description="Logins for registries, in the form of Docker's config.json (`auths`). Any deal may run what they"
        " can read: use an account that sees public images only. Docker's own logins are never used.",
    )
    image_max_bytes: Bytes = Field(
        wire.IMAGE_BYTES,
        description="Largest app image, unpacked, in bytes. All machines take at most the default; a larger image is"
        " the task's failure; a worker that sets less declines what is larger than its own.",
    )
    image_disk_bytes: Bytes = Field(
        64 * 2**30,
        description="Bytes that images fetched for deals may take together; the least recently used are removed.",
    )
    dataset_disk_bytes: Bytes = Field(
        64 * 2**30,
        description="Bytes that datasets kept for later tasks may take; the least recently used are removed.",
    )
    local_images: str = Field(
        "",
        description="Names of images on this machine's own engine that deals may run as they are, separated by commas"
        " (local stack and tests). Others are always fetched from their registry.",
    )
    sandbox: Literal["compat", "strict", "isolated"] = Field(
        "compat",
        description="How apps are confined: as ordinary images need it (compat); without network and capabilities, on a"
        " read-only file system with a small /tmp (strict); as compat, by a runtime of its own (isolated). A machine"
        " that is strict or isolated votes for results only and declines a task whose app fails.",
    )
    sandbox_runtime: str = Field(
        "runsc",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="The Docker engine's runtime for `isolated`, e.g. runsc (gVisor) or kata.",
    )
    app_network: Literal["public", "none", "open"] | None = Field(
        None,
        description="What apps reach: the internet, but no private address, no address of this machine and no other app"
        " (public); nothing (none); all that this machine reaches (open: unsafe). Unset: none in strict, else public."
        " With none, a task whose app fails is declined.",
    )
    app_domains: str = Field(
        "",
        description="Host names that apps reach and nothing else, e.g. `data.example.org,api.example.com:8443` (TCP;"
        " ports 80 and 443 unless one is named). Each is resolved when a container starts, and apps have no name"
        " server. A task whose app fails is declined. Empty: as SLUICE_APP_NETWORK has it.",
    )
    ping_seconds: Seconds = Field(10.0, description="How often a worker says it is alive.")

    # -- logging --------------------------------------------------------------------------------------------------
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    log_format: Literal["json", "text"] = Field("json", description="Log lines as JSON or for people.")
    metrics_dir: Path | None = Field(None, description="Where processes share metrics; `metrics` in the home if unset.")


#: Every variable that some process of Sluice reads.
VARIABLES = frozenset(
    f"{kind.model_config['env_prefix']}{name.upper()}"
    for kind in (Settings, StackSettings, SmsSettings)
    for name in kind.model_fields
)


@cache
def settings() -> Settings:
    """The settings of this process. Raises BadSetting naming the first wrong variable."""
    return read_settings()


def read_settings(**overrides: object) -> Settings:
    """Settings from the environment, with `overrides` on top (for tests and the demo). Raises BadSetting."""
    refuse_unknown(os.environ, VARIABLES)
    try:
        found = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise wrong_variable(PREFIX, error) from error
    filled = addresses_with_passwords(found)
    return found.model_copy(update=filled) if filled else found
