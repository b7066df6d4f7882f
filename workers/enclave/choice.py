"""Which kind of enclave a machine runs: SLUICE_ENCLAVE."""

from __future__ import annotations

from config.settings import Settings
from protocol.enclave.simulation import require_development
from protocol.errors import BadSetting
from protocol.ethereum.signing import Key
from protocol.wire import PoolConfig
from workers.enclave.port import SETTING, Framework
from workers.enclave.simulated import Simulated
from workers.enclave.sms_api import SmsApi
from workers.enclave.tdx import AgentGuest, Guest, Tdx


def chosen(settings: Settings, pool: PoolConfig, key: Key, guest: Guest | None = None) -> Framework | None:
    """The kind of enclave that this machine runs; None: none. `settings`: completed by the pool's; `guest`: this
    machine as a guest of a TDX host. Raises BadSetting for a kind that it cannot run.
    """
    if settings.enclave == "none":
        return None
    guest = guest or AgentGuest()
    if settings.enclave == "tdx" and (missing := guest.missing()):
        why = f"TDX enclaves cannot be run here: {'; '.join(missing)}"
        raise BadSetting(name=SETTING, why=why, fix="Unset it: the machine then does tasks without an enclave.")
    if settings.enclave == "simulated":
        require_development(settings.chain_id, SETTING)
    if pool.sms_url is None:
        why = f"it is {settings.enclave}, and the pool at {settings.api_url} names no secret service"
        raise BadSetting(
            name=SETTING, why=why, fix="Unset it, or ask the pool's operator for one (SLUICE_ENCLAVE_SMS_URL)."
        )
    service = SmsApi(pool.sms_url, key, allow_plaintext=settings.allow_plaintext)
    return Tdx(service, guest) if settings.enclave == "tdx" else Simulated(service)
