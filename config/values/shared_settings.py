"""Settings of a scheduler and of a worker machine alike: places, chain, wallet, lane, servers and results."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from config.values.numbers import Bytes, Days, DaysOrEver, Gwei, Port, Seconds
from config.values.sources import GivenOrEnvironment
from config.values.types import Address, ContractName, MachineName
from protocol import wire


class SharedSettings(GivenOrEnvironment):
    """What most processes need: where things are kept, the chain, a wallet and its lane, servers, results."""

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
