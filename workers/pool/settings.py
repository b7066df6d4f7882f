"""Settings of a machine, completed by its pool's `/config`."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from chain.contracts.ens_names import with_addresses
from chain.contracts.hub import Hub
from config.connections.http_client import is_loopback
from config.settings import Settings
from config.values.endpoints import require_encrypted, rpc_urls
from protocol.errors import BadSetting, WrongChain
from protocol.types import Contract
from protocol.wire import PoolConfig
from workers.data.guard import is_public

#: Seconds between blocks that a pool is believed, at least and at most: chains have 0.25 to 15. By more, a machine
#: would hardly look at the chain, and reveal nothing that it is not asked for; by less, it would do nothing else.
LEAST_BLOCK_TIME, MOST_BLOCK_TIME = 0.05, 60.0


def complete_settings(settings: Settings, pool: PoolConfig) -> Settings:
    """The settings, completed by the pool's own.

    What the operator set takes precedence: a pool cannot change a machine's contracts or its node. Raises BadSetting
    where the operator named another pool or chain, or where the node is elsewhere and not encrypted; RpcUnavailable
    only where the operator gave an ENS name.
    """
    given = settings.model_fields_set
    block_time = min(max(pool.block_time, LEAST_BLOCK_TIME), MOST_BLOCK_TIME)
    nearby = {"rpc_url": pool.rpc_url, "ws_url": pool.ws_url, "block_time": block_time}
    if "rpc_url" in given:
        # Heads and state must come from one node.
        nearby.pop("rpc_url")
        nearby.pop("ws_url")
    nearby = {name: value for name, value in nearby.items() if name not in given}
    _require_encrypted_node(settings.model_copy(update=nearby))
    from_pool = {"chain_id": pool.chain_id, "hub": pool.hub, "workerpool": pool.workerpool}
    # Names are those of the pool's chain, by the node that this machine will ask.
    named = with_addresses(settings.model_copy(update={"chain_id": pool.chain_id, **nearby}))
    mine_of = {"chain_id": settings.chain_id, "hub": named.hub, "workerpool": named.workerpool}
    for name, value in from_pool.items():
        mine = mine_of[name]
        if name in given and mine is not None and str(mine).lower() != str(value).lower():
            raise BadSetting(
                name=f"SLUICE_{name.upper()}",
                why=f"it is {mine}, the pool at {settings.api_url} has {value}",
                fix="Name the right pool with SLUICE_API_URL, or remove the setting.",
            )
    own = settings.model_copy(update={**from_pool, **nearby})
    # What the operator named stays apart from what the pool did.
    own.model_fields_set.intersection_update(given)
    return own


def gateway_of(own: Settings, pool: PoolConfig) -> tuple[str, bool]:
    """A machine's IPFS gateway, by its completed settings, and whether that may be at a private address.

    What a gateway sends may become a result, which others read: a pool must not name a server of the machine's own
    network as one. It may if the operator set the pool's API to such an address, by number: a name could be pointed
    elsewhere by its owner, the pool.
    """
    if "ipfs_gateway" in own.model_fields_set:
        return own.ipfs_gateway, True
    return pool.ipfs_gateway, _is_private(urlsplit(own.api_url).hostname or "")


def _is_private(host: str) -> bool:
    """Whether a host is this machine, or an address that is not of the open internet."""
    try:
        return is_loopback(host) or not is_public(ip_address(host))
    except ValueError:
        return False


def node_of_pool(own: Settings) -> bool:
    """Whether a machine uses the pool's node, because its operator named none (by its completed settings)."""
    return "rpc_url" not in own.model_fields_set


def _require_encrypted_node(settings: Settings) -> None:
    """Raise BadSetting for a node of another machine without encryption: its answers decide what is signed."""
    for url in (*rpc_urls(settings), settings.ws_url or ""):
        require_encrypted("the chain's node (SLUICE_RPC_URL)", url, allowed=settings.allow_plaintext)


def check_scheduler(hub: Hub, pool: PoolConfig) -> None:
    """Raise WrongChain unless the chain says that the pool's scheduler owns its workerpool: whose signature counts is
    not for the pool to decide. Raises RpcUnavailable while the node cannot say.
    """
    owner = hub.workerpool(Contract(pool.workerpool)).owner
    if owner.lower() != pool.scheduler.lower():
        raise WrongChain(
            why=f"workerpool {pool.workerpool} belongs to {owner}, and the pool's scheduler is {pool.scheduler}",
            fix="Nothing that it signs would be paid. Ask the pool's operator, or name another pool.",
        )
