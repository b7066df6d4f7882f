"""Which kind of enclave a machine runs: SLUICE_ENCLAVE."""

from __future__ import annotations

from config.settings import Settings
from protocol.enclave.simulation import require_development
from protocol.errors import BadSetting
from protocol.ethereum.signing import Key
from protocol.wire import PoolConfig
from workers.enclave import tdx
from workers.enclave.port import Framework
from workers.enclave.simulated import Simulated
from workers.enclave.sms_api import SmsApi

SETTING = "SLUICE_ENCLAVE"


def chosen(settings: Settings, pool: PoolConfig, key: Key) -> Framework | None:
    """The kind of enclave that this machine runs; None: none. `settings`: completed by the pool's. Raises BadSetting
    for one that it cannot run.
    """
    if settings.enclave == "none":
        return None
    if settings.enclave == "tdx":
        why = f"TDX enclaves cannot be run here: {'; '.join(tdx.missing())}"
        raise BadSetting(name=SETTING, why=why, fix="Unset it: the machine then does tasks without an enclave.")
    require_development(settings.chain_id, SETTING)
    if pool.sms_url is None:
        why = f"it is {settings.enclave}, and the pool at {settings.api_url} names no secret service"
        raise BadSetting(
            name=SETTING, why=why, fix="Unset it, or ask the pool's operator for one (SLUICE_ENCLAVE_SMS_URL)."
        )
    return Simulated(SmsApi(pool.sms_url, key, allow_plaintext=settings.allow_plaintext))
