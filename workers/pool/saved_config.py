"""What the pool last said of itself, kept on disk: commands that look into this machine work while the pool is away."""

from __future__ import annotations

import structlog
from pydantic import ValidationError

from chain.keystore import load_key
from config.settings import Settings
from protocol.errors import PoolUnavailable
from protocol.types import Wallet
from protocol.wire import PoolConfig
from workers.data.layout import layout_of
from workers.pool.api import PoolApi
from workers.pool.settings import complete_settings

log = structlog.get_logger(__name__)


def save_pool_config(settings: Settings, wallet: Wallet, pool: PoolConfig) -> None:
    """Keep what the pool said."""
    path = layout_of(settings.home, wallet).pool
    partial = path.with_suffix(".part")
    partial.write_text(pool.model_dump_json())
    partial.replace(path)


def load_pool_config(settings: Settings, wallet: Wallet) -> PoolConfig | None:
    """What it said when this machine last started; None if it never did, or an older release wrote it."""
    try:
        return PoolConfig.model_validate_json(layout_of(settings.home, wallet).pool.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def settings_from_pool(settings: Settings) -> Settings:
    """The settings, completed by the pool's word, or by its last one while it does not answer.

    Raises PoolUnavailable if it was never heard, BadSetting, BadKeystore.
    """
    try:
        pool = PoolApi(settings.api_url).config()
    except PoolUnavailable:
        known = load_pool_config(settings, load_key(settings).wallet)
        if known is None and settings.hub is not None:
            # The operator has named what the pool would have said.
            return settings
        if known is None:
            raise
        log.warning("The pool does not answer; going by what it said last.", action="pool_recalled")
        pool = known
    return complete_settings(settings, pool)
