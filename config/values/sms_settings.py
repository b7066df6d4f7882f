"""Settings of the secret service alone, read from `SLUICE_SMS_…` environment variables."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.values.numbers import Port
from config.values.variables import PREFIX, wrong_variable

SMS_PREFIX = f"{PREFIX}SMS_"


class SmsSettings(BaseSettings):
    """What `sluice sms run` needs besides the chain (SLUICE_RPC_URL, SLUICE_HUB), MongoDB (SLUICE_MONGODB_URI) unless
    it has a file, and, for bulks of datasets, SLUICE_IPFS_GATEWAY.
    """

    model_config = SettingsConfigDict(env_prefix=SMS_PREFIX, frozen=True, extra="ignore")

    host: str = Field("127.0.0.1", description="Address the secret service listens on.")
    port: Port = Field(18320, description="Port the secret service listens on.")
    url: str | None = Field(
        None, description="Where workers reach the secret service. Unset: SLUICE_SMS_HOST and SLUICE_SMS_PORT."
    )
    database: str = Field(
        "sluice_sms", description="Its database in MongoDB; not the scheduler's, and one for each chain."
    )
    sqlite_file: Path | None = Field(
        None,
        description="SQLite file to store in, in place of MongoDB: for a service on one machine, and one file for each"
        " chain. Copy it with `sqlite3 FILE '.backup COPY'`.",
    )
    key_file: Path | None = Field(
        None,
        description="File with the keys that secrets are encrypted with, mode 600; made if absent. Unset: `sms.keys` in"
        " SLUICE_HOME. Without it nothing that is stored can be read: keep a copy elsewhere.",
    )
    kms_command: str | None = Field(
        None,
        description="Program that wraps the keys in that file with one of a key service (KMS): called with `wrap` or"
        " `unwrap` (docs/secret-service.md). Unset: they stand in the file as they are.",
    )
    framework: Literal["TDX", "SCONE", "GRAMINE"] = Field("TDX", description="Kind of enclave that it serves.")
    properties_file: Path | None = Field(
        None,
        description="JSON file with the images of pre- and post-compute for each version of the framework"
        " (docs/secret-service.md).",
    )
    session_store: str | None = Field(
        None, description="Where sessions are posted (`POST …/session`): the service that attests enclaves of TDX."
    )
    attestation_url: str | None = Field(
        None, description="Where enclaves get the sessions that are at SLUICE_SMS_SESSION_STORE."
    )
    simulation: bool = Field(
        False,
        description="Give sessions, and the secrets in them, to workers themselves, without attestation. Refused unless"
        " SLUICE_CHAIN_ID is that of a development chain.",
    )
    rate_secrets: str = Field("120/minute", description="Secrets stored from one address.")
    rate_tasks: str = Field("3000/minute", description="Challenges and sessions asked for from one address.")


def sms_key_file(home: Path, sms: SmsSettings) -> Path:
    """The file with the keys of what is stored. `home`: SLUICE_HOME."""
    return sms.key_file or home / "sms.keys"


@cache
def sms_settings() -> SmsSettings:
    """The secret service's settings. Raises BadSetting naming the first wrong variable."""
    return read_sms_settings()


def read_sms_settings(**overrides: object) -> SmsSettings:
    """As `sms_settings`, with `overrides` on top (for tests and the demo). Raises BadSetting."""
    try:
        return SmsSettings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise wrong_variable(SMS_PREFIX, error) from error
