"""Settings of a pool's scheduler alone: its ports, its processes, machines and orders, and who may work."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from config.values.numbers import Days, Port, Seconds
from config.values.sources import GivenOrEnvironment
from protocol import wire


class PoolSettings(GivenOrEnvironment):
    """What the scheduler of a pool needs beside the shared settings."""

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
