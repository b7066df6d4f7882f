"""The ports of the local stack, read from `SLUICE_STACK_…` environment variables."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.values.variables import PREFIX


class StackSettings(BaseSettings):
    """Ports and form of the local stack's own parts; below 32768, where the kernel hands out no ephemeral ports."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}STACK_", frozen=True, extra="ignore")

    mongodb_port: int = Field(18017, gt=0, lt=65536, description="MongoDB.")
    rabbitmq_port: int = Field(
        18672,
        gt=0,
        lt=65529,
        description="AMQP; management, distribution, epmd, metrics, AMQP with TLS follow, and two more for a cluster.",
    )
    cluster: bool = Field(
        False,
        description="MongoDB and RabbitMQ as clusters of three, at 127.0.0.2 to 127.0.0.4 (`stack up --cluster`).",
    )
    sharded: bool = Field(
        False,
        description="MongoDB as a router, a config server and two shards, at 127.0.0.1 and 127.0.0.5 to 127.0.0.7.",
    )
    tls: bool = Field(False, description="Have workers use RabbitMQ's listener with TLS.")
    rpc_port: int = Field(18545, gt=0, lt=65536, description="The chain: JSON-RPC over HTTP and WebSocket.")
    ipfs_api_port: int = Field(18501, gt=0, lt=65536, description="Kubo's RPC API.")
    ipfs_gateway_port: int = Field(18580, gt=0, lt=65536, description="IPFS gateway.")
