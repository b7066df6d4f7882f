"""The place of a pool: a chain of its own, and its names and ports on the shared servers of the stack."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chain.rpc.client import Rpc
from config.connections.mongodb import drop_database
from config.settings import read_settings
from ops.market.contracts import NewDataset
from ops.poco.deploy import PocoAddresses
from ops.pool import on_chain
from ops.pool.local import LocalPool
from ops.stack import ports
from pipeline.broker.admin import BrokerAdmin


@dataclass(frozen=True, slots=True)
class Servers:
    """Addresses of the servers that pools share."""

    mongodb_uri: str = field(repr=False)
    amqp_url: str = field(repr=False)
    amqp_port: int
    rabbitmq_api: str
    ipfs_api: str
    ipfs_gateway: str
    docker_host: str
    #: What else workers need to know of RabbitMQ, as `SLUICE_…` settings: its hosts, that it has TLS, the CA to trust.
    amqp_public: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chain:
    """A development chain with PoCo on it."""

    rpc_url: str
    ws_url: str
    chain_id: int
    block_time: float
    addresses: PocoAddresses


@dataclass(frozen=True, slots=True)
class Names:
    """Names that keep pools apart on shared servers, and their ports."""

    database: str
    core: str
    pool: str
    api_port: int
    flower_port: int
    operations_port: int

    @classmethod
    def fresh(cls) -> Names:
        """Random names, and free ports, for a new pool."""
        mark = secrets.token_hex(4)
        api, flower, operations = ports.free_port(), ports.free_port(), ports.free_port()
        return cls(f"sluice_{mark}", f"core-{mark}", f"pool-{mark}", api, flower, operations)


def environment(
    servers: Servers, chain: Chain, names: Names, at: on_chain.PoolOnChain, *, start_block: int
) -> dict[str, str]:
    """The `SLUICE_…` settings that all processes of the pool share."""
    return {
        "SLUICE_CHAIN_ID": str(chain.chain_id),
        "SLUICE_RPC_URL": chain.rpc_url,
        "SLUICE_WS_URL": chain.ws_url,
        "SLUICE_BLOCK_TIME": str(chain.block_time),
        "SLUICE_START_BLOCK": str(start_block),
        "SLUICE_HUB": at.at.hub,
        "SLUICE_WORKERPOOL": at.workerpool,
        "SLUICE_MONGODB_URI": servers.mongodb_uri,
        "SLUICE_MONGODB_DATABASE": names.database,
        "SLUICE_AMQP_URL": servers.amqp_url,
        "SLUICE_AMQP_CORE_VHOST": names.core,
        "SLUICE_AMQP_POOL_VHOST": names.pool,
        "SLUICE_AMQP_PUBLIC_PORT": str(servers.amqp_port),
        "SLUICE_RABBITMQ_API": servers.rabbitmq_api,
        **servers.amqp_public,
        "SLUICE_IPFS_API": servers.ipfs_api,
        "SLUICE_IPFS_GATEWAY": servers.ipfs_gateway,
        "SLUICE_API_PORT": str(names.api_port),
        "SLUICE_API_URL": f"http://127.0.0.1:{names.api_port}",
        "SLUICE_FLOWER_PORT": str(names.flower_port),
        "SLUICE_OPERATIONS_PORT": str(names.operations_port),
        "SLUICE_DOCKER_HOST": servers.docker_host,
        # Everything is on this machine: datasets and input files come from the local IPFS gateway.
        "SLUICE_ALLOW_PRIVATE_DOWNLOADS": "true",
        # It was built on this engine and is at no registry.
        "SLUICE_LOCAL_IMAGES": at.app_image,
    }


def prepare(
    servers: Servers,
    chain: Chain,
    names: Names,
    home: Path,
    *,
    workers: int,
    image: str,
    datasets: Sequence[NewDataset] = (),
    env: dict[str, str] | None = None,
    tied: bool = False,
) -> LocalPool:
    """Create contracts, wallets and virtual hosts of a pool, which is then ready to start.

    `tied`: the pool's programs end with this process.
    """
    with Rpc(chain.rpc_url) as rpc:
        start_block = int(rpc.call("eth_blockNumber"), 16)
        place = on_chain.prepare(
            rpc, chain.addresses, chain_id=chain.chain_id, workers=workers, image=image, datasets=datasets
        )
    shared = environment(servers, chain, names, place, start_block=start_block) | (env or {})
    with _open_admin(servers, names) as admin:
        admin.prepare()
    return LocalPool(home=home, on_chain=place, env=shared, api_url=shared["SLUICE_API_URL"], tied=tied)


def clear(servers: Servers, names: Names) -> None:
    """Remove a pool's virtual hosts and database from the shared servers."""
    with _open_admin(servers, names) as admin:
        admin.remove_vhosts()
    drop_database(servers.mongodb_uri, names.database)


@contextmanager
def _open_admin(servers: Servers, names: Names) -> Iterator[BrokerAdmin]:
    """RabbitMQ's administration for the virtual hosts of this pool."""
    settings = read_settings(
        amqp_url=servers.amqp_url,
        rabbitmq_api=servers.rabbitmq_api,
        amqp_core_vhost=names.core,
        amqp_pool_vhost=names.pool,
    )
    with BrokerAdmin.from_settings(settings) as admin:
        yield admin
