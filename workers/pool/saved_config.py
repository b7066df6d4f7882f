"""The pool's last `/config`, kept on disk so that a machine's commands work while the pool does not answer."""

from __future__ import annotations

import structlog
from pydantic import ValidationError

from chain.keystore import load_key
from chain.lane.model.policy import LanePolicy
from config.settings import Settings
from config.whole_files import write_whole
from protocol.errors import PoolUnavailable
from protocol.types import Wallet
from protocol.wire import PoolConfig
from workers.data.layout import layout_of
from workers.money import pins
from workers.money.limits import lane_policy
from workers.pool.api import PoolApi
from workers.pool.settings import complete_settings, node_of_pool

log = structlog.get_logger(__name__)


def save_pool_config(settings: Settings, wallet: Wallet, pool: PoolConfig) -> None:
    """Write the pool's `/config` to disk."""
    write_whole(layout_of(settings.home, wallet).pool, pool.model_dump_json())


def load_pool_config(settings: Settings, wallet: Wallet) -> PoolConfig | None:
    """The `/config` saved at this machine's last start; None if there is none, or an older release wrote it."""
    try:
        return PoolConfig.model_validate_json(layout_of(settings.home, wallet).pool.read_bytes(), extra="ignore")
    except (FileNotFoundError, ValidationError):
        return None


def settings_from_pool(settings: Settings, wallet: Wallet | None = None) -> Settings:
    """The settings, completed as `completed_by_pool` does. Raises as that."""
    return completed_by_pool(settings, wallet)[0]


def completed_by_pool(settings: Settings, wallet: Wallet | None = None) -> tuple[Settings, PoolConfig | None]:
    """The settings, completed by the pool's `/config`, or by the saved one while the pool does not answer; and what
    completed them, None where the operator named all that is needed and the pool never answered.

    `wallet`: that of the settings, for callers that know it: a keystore takes a second to open.

    Raises PoolUnavailable if there is neither, BadSetting (also for a pool that is not the one of the first start),
    BadKeystore.
    """
    wallet = wallet or load_key(settings).wallet
    try:
        pool = PoolApi.of(settings).config()
    except PoolUnavailable:
        known = load_pool_config(settings, wallet)
        if known is None and settings.hub is not None:
            # The operator has named what the pool would have said.
            return settings, None
        if known is None:
            raise
        log.warning("The pool does not answer; its saved configuration is used.", action="pool_recalled")
        pool = known
    own = complete_settings(settings, pool)
    pins.check(layout_of(settings.home, wallet), own, settings.model_fields_set)
    return own, pool


def policy_of(own: Settings) -> LanePolicy:
    """How this machine pays for transactions, by its completed settings, while it need not be running."""
    return lane_policy(own, node_of_pool=node_of_pool(own))
