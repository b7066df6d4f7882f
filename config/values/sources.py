"""Where settings come from: what a caller gives, then the environment."""

from __future__ import annotations

import os

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from config.values.variables import PREFIX


class GivenOrEnvironment(BaseSettings):
    """Settings from arguments, then from the environment, and nowhere else."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 # pydantic-settings gives all five by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources, most important first. Each further one would be asked for each field: 2 ms for nothing."""
        given = any(name.upper().startswith(PREFIX) for name in os.environ)
        return (init_settings, env_settings) if given else (init_settings,)
