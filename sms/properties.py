"""The images of pre- and post-compute that the operator has chosen, by version of the framework.

    SLUICE_SMS_PROPERTIES_FILE   {"<version>": {"preComputeProperties": {"image": …, "fingerprint": …, …},
                                                "postComputeProperties": {…}, "lasImage": … (SCONE)}}

The first version is what is used where nobody asks for one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from config.values.sms_settings import SmsSettings
from protocol.enclave.session import FrameworkProperties
from protocol.errors import BadSetting

_SETTING = "SLUICE_SMS_PROPERTIES_FILE"
_FIX = "See docs/secret-service.md for its form."
#: Version, and images, of a service that has no such file: only a simulation can do without.
_NONE = {"image": "", "fingerprint": "", "entrypoint": "", "heapSizeInBytes": 0}
NO_VERSION = "v0"


def read_properties(sms: SmsSettings) -> dict[str, FrameworkProperties]:
    """The properties by version, at least one. Raises BadSetting."""
    if sms.properties_file is None:
        return {NO_VERSION: _made(sms, NO_VERSION, {"preComputeProperties": _NONE, "postComputeProperties": _NONE})}
    found = _read(sms.properties_file)
    try:
        return {version: _made(sms, version, row) for version, row in found.items()}
    except (ValidationError, TypeError) as error:
        raise _bad(sms.properties_file, "one of its versions is not of the form") from error


def _made(sms: SmsSettings, version: str, row: Mapping[str, object]) -> FrameworkProperties:
    """One version of the framework, from the file's entry."""
    return FrameworkProperties.model_validate({**row, "teeFramework": sms.framework, "teeFrameworkVersion": version})


def _read(path: Path) -> dict[str, Mapping[str, object]]:
    """The file's entries by version. Raises BadSetting."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _bad(path, f"it cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(found, dict) or not found:
        raise _bad(path, "it names no version")
    return found


def _bad(path: Path, why: str) -> BadSetting:
    """The error for a file that cannot be used."""
    return BadSetting(name=_SETTING, why=f"{path}: {why}", fix=_FIX)
