"""The pool's last `/config`, kept on disk so that a machine's commands work while the pool does not answer."""

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
    """Write the pool's `/config` to disk."""
    path = layout_of(settings.home, wallet).pool
    partial = path.with_suffix(".part")
    partial.write_text(pool.model_dump_json())
    partial.replace(path)


def load_pool_config(settings: Settings, wallet: Wallet) -> PoolConfig | None:
    """The `/config` saved at this machine's last start; None if there is none, or an older release wrote it."""
    try:
        return PoolConfig.model_validate_json(layout_of(settings.home, wallet).pool.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def settings_from_pool(settings: Settings) -> Settings:
    """The settings, completed by the pool's `/config`, or by the saved one while the pool does not answer.

    Raises PoolUnavailable if there is neither, BadSetting, BadKeystore.
    """
    try:
        pool = PoolApi.of(settings).config()
    except PoolUnavailable:
        known = load_pool_config(settings, load_key(settings).wallet)
        if known is None and settings.hub is not None:
            # The operator has named what the pool would have said.
            return settings
        if known is None:
            raise
        log.warning("The pool does not answer; its saved configuration is used.", action="pool_recalled")
        pool = known
    return complete_settings(settings, pool)
