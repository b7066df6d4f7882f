"""ENS names in place of addresses: resolved once, when a process or a command starts, and an address from then on.

    SLUICE_WORKERPOOL=pool.example.eth ──registry of the chain──► resolver ──► 0x…
    sluice enrol allow alice.eth

A name without an owner is wrong; a node that does not answer, or has no registry yet, has said nothing of the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from chain.contracts.contract import checksummed
from chain.rpc.client import JsonRpc
from chain.rpc.library import load_web3
from chain.rpc.pool import connect
from config.settings import Settings
from config.values.types import ENS_NAME, is_address
from protocol.errors import BadSetting, RpcUnavailable
from protocol.types import ZERO_ADDRESS, Contract, Wallet

log = structlog.get_logger(__name__)

#: ENS registries by chain id: Ethereum's and Sepolia's (docs.ens.domains), Bellecour's (iExec SDK 8, its chain table).
REGISTRIES: Final = {
    1: Contract("0x00000000000c2e074ec69a0dfb2997ba6c7d2e1e"),
    11155111: Contract("0x00000000000c2e074ec69a0dfb2997ba6c7d2e1e"),
    134: Contract("0x5f5b93fca68c9c79318d1f3868a354ee67d8c006"),
}
#: The settings that may hold a name.
_NAMED: Final = ("hub", "workerpool")


def ens_names(settings: Settings) -> dict[str, str]:
    """The ENS names that stand in the settings, by field."""
    given = {field: getattr(settings, field) for field in _NAMED}
    return {field: str(value) for field, value in given.items() if value is not None and not is_address(str(value))}


def with_addresses(settings: Settings) -> Settings:
    """The settings with an address wherever a name stood. Asks the node only if there is one.

    Called by each command and service before it uses a contract. Raises BadSetting for a name without an address or a
    chain without ENS, RpcUnavailable.
    """
    names = ens_names(settings)
    found = _resolve(settings, {f"SLUICE_{field.upper()}": name for field, name in names.items()})
    return (
        settings.model_copy(update={field: found[f"SLUICE_{field.upper()}"] for field in names}) if names else settings
    )


def wallets_of(settings: Settings, given: Sequence[str]) -> list[Wallet]:
    """Wallets that somebody gave as addresses or ENS names, each once, in lower case. Asks the node only for names.

    Raises BadSetting for what is neither, a name without an address or a chain without ENS, RpcUnavailable.
    """
    for text in given:
        if not is_address(text) and not ENS_NAME.fullmatch(text):
            fix = "Write 0x and 40 hex digits, or an ENS name."
            raise BadSetting(name="WALLET", why=f"{text!r} is no address", fix=fix)
    found = {text: _resolve(settings, {"WALLET": text})["WALLET"] for text in given if not is_address(text)}
    return list(dict.fromkeys(Wallet(found.get(text, text).lower()) for text in given))


def _resolve(settings: Settings, names: Mapping[str, str]) -> dict[str, Contract]:
    """The address of each name, by what asks for it: a setting or an argument."""
    if not names:
        return {}
    registry = Contract(settings.ens_registry.lower()) if settings.ens_registry else REGISTRIES.get(settings.chain_id)
    if registry is None:
        asking, name = next(iter(names.items()))
        raise BadSetting(
            name=asking,
            why=f"{name} is an ENS name, and no ENS registry is known on chain {settings.chain_id}",
            fix="Give the address, or the chain's registry in SLUICE_ENS_REGISTRY.",
        )
    rpc = connect(settings)
    try:
        return {asking: _resolve_name(rpc, registry, asking, name) for asking, name in names.items()}
    finally:
        rpc.close()


def _resolve_name(rpc: JsonRpc, registry: Contract, setting: str, name: str) -> Contract:
    """The address of an ENS name that stands in `setting`: registry, resolver, `addr` (EIP-137).

    Not by web3.py's own `ENS.address`: it asks the Universal Resolver, which Ethereum and Sepolia alone have.
    """
    load_web3()
    # Once web3.py is loaded. web3.py brings this package, which has no types.
    from ens.abis import ENS, PUBLIC_RESOLVER_2  # type: ignore[import-untyped] # noqa: PLC0415
    from ens.exceptions import InvalidName  # type: ignore[import-untyped] # noqa: PLC0415
    from ens.utils import raw_name_to_hash  # type: ignore[import-untyped] # noqa: PLC0415
    from web3.exceptions import BadFunctionCallOutput  # noqa: PLC0415

    from chain.rpc.provider import web3_over  # noqa: PLC0415

    contract = web3_over(rpc).eth.contract
    try:
        node = raw_name_to_hash(name)
        resolver = contract(checksummed(registry), abi=ENS).functions.resolver(node).call()
        address = ZERO_ADDRESS
        if resolver != ZERO_ADDRESS:
            address = contract(resolver, abi=PUBLIC_RESOLVER_2).functions.addr(node).call().lower()
    except InvalidName as error:
        raise BadSetting(name=setting, why=f"{name} is no ENS name", fix="Correct it, or give the address.") from error
    except BadFunctionCallOutput as error:
        why = f"it has nothing from the ENS registry {registry}: it may be behind, or the registry is elsewhere"
        raise RpcUnavailable(what=rpc.name, why=why) from error
    if address == ZERO_ADDRESS:
        raise BadSetting(
            name=setting,
            why=f"the ENS registry {registry} has no address for {name}",
            fix="Correct the name, give it an address there, or give the address itself.",
        )
    log.info("Name resolved.", action="ens_resolved", name=name, address=address)
    return Contract(address)
