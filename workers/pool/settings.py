"""Settings of a machine, completed by its pool's `/config`."""

from __future__ import annotations

from config.settings import Settings
from protocol.errors import BadSetting
from protocol.wire import PoolConfig


def complete_settings(settings: Settings, pool: PoolConfig) -> Settings:
    """The settings, completed by the pool's own. Raises BadSetting where the operator named another pool or chain.

    What the operator set takes precedence: a pool cannot change a machine's contracts or its node.
    """
    from_pool = {"chain_id": pool.chain_id, "hub": pool.hub, "workerpool": pool.workerpool}
    given = settings.model_fields_set
    for name, value in from_pool.items():
        mine = getattr(settings, name)
        if name in given and mine is not None and str(mine).lower() != str(value).lower():
            raise BadSetting(
                name=f"SLUICE_{name.upper()}",
                why=f"it is {mine}, the pool at {settings.api_url} has {value}",
                fix="Name the right pool with SLUICE_API_URL, or remove the setting.",
            )
    nearby = {"rpc_url": pool.rpc_url, "ws_url": pool.ws_url, "block_time": pool.block_time}
    if "rpc_url" in given:
        # Heads and state must come from one node.
        nearby.pop("rpc_url")
        nearby.pop("ws_url")
    return settings.model_copy(
        update={**from_pool, **{key: value for key, value in nearby.items() if key not in given}}
    )
