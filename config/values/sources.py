"""Where settings come from: what a caller gives, then the environment."""

from __future__ import annotations

import os

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.values.variables import PREFIX


class GivenOrEnvironment(BaseSettings):
    """Settings from arguments, then from the environment, and nowhere else."""

    # `defer_build`: a class that only lends its fields to another one needs no validators of its own.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", defer_build=True)

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
