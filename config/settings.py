"""All settings, read once from `SLUICE_…` environment variables into one frozen object.

    config.values.shared_settings   every process: places, chain, wallet, lane, servers, results
    config.values.pool_settings     the scheduler
    config.values.machine_settings  a worker machine

Every field's description is a row of `docs/settings.md` (generated).
Secrets are `SecretStr`: no repr or log shows them.
Ports of the local stack stay below 32768, where the kernel hands out no ephemeral ports.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from config.password_files import addresses_with_passwords
from config.values.machine_settings import MachineSettings
from config.values.pool_settings import PoolSettings
from config.values.shared_settings import SharedSettings
from config.values.sms_settings import SmsSettings
from config.values.stack_settings import StackSettings
from config.values.variables import PREFIX, refuse_unknown, wrong_variable


# pydantic takes the fields of these classes from the last to the first: the order of docs/settings.md.
class Settings(MachineSettings, PoolSettings, SharedSettings):
    """Settings of every Sluice process; each process uses the part that concerns it."""

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
