"""Which kind of enclave a machine runs: SLUICE_ENCLAVE."""

from __future__ import annotations

from typing import Final

from config.settings import Settings
from protocol.enclave.simulation import require_development
from protocol.errors import BadSetting
from protocol.ethereum.signing import Key
from protocol.poco import tags
from protocol.wire import PoolConfig
from workers.enclave.port import SETTING, Framework
from workers.enclave.sgx import Sgx, SgxHost
from workers.enclave.simulated import Simulated
from workers.enclave.sms_api import SmsApi
from workers.enclave.tdx import AgentGuest, Guest, Tdx
from workers.sandbox.profile import sandbox_of

#: Kinds of enclave by their setting; what is simulated is TDX.
KINDS: Final = {
    "simulated": tags.Framework.TDX,
    "tdx": tags.Framework.TDX,
    "scone": tags.Framework.SCONE,
    "gramine": tags.Framework.GRAMINE,
}


def chosen(
    settings: Settings, pool: PoolConfig, key: Key, guest: Guest | None = None, sgx: SgxHost | None = None
) -> Framework | None:
    """The kind of enclave that this machine runs; None: none. `settings`: completed by the pool's; `guest`, `sgx`: this
    machine as a guest of a TDX host, and as one with SGX. Raises BadSetting for a kind that it cannot run.
    """
    kind = settings.enclave
    if kind == "none":
        return None
    guest, network = guest or AgentGuest(), sandbox_of(settings).network
    if KINDS[kind] in tags.SGX_BITS:
        sgx = sgx or SgxHost(KINDS[kind], settings.enclave_las)
        _require_nothing_missing(kind, sgx.missing(network))
    if kind == "tdx":
        _require_nothing_missing(kind, guest.missing())
    if kind == "simulated":
        require_development(settings.chain_id, SETTING)
    url = pool.secret_service(KINDS[kind])
    if url is None:
        why = f"it is {kind}, and the pool at {settings.api_url} names no secret service for {KINDS[kind]}"
        raise BadSetting(
            name=SETTING, why=why, fix="Unset it, or ask the pool's operator for one (SLUICE_ENCLAVE_SMS_URL)."
        )
    service = SmsApi(url, key, allow_plaintext=settings.allow_plaintext)
    if sgx is not None:
        return Sgx(service, sgx, network, settings.enclave_heap_bytes)
    return Tdx(service, guest) if kind == "tdx" else Simulated(service)


def _require_nothing_missing(kind: str, missing: list[str]) -> None:
    """Raise BadSetting if this list of what the machine lacks is not empty."""
    if missing:
        why = f"{kind.upper()} enclaves cannot be run here: {'; '.join(missing)}"
        raise BadSetting(name=SETTING, why=why, fix="Unset it: the machine then does tasks without an enclave.")
