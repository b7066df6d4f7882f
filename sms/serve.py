"""Main of `sluice sms run`."""

from __future__ import annotations

import signal
import sys
import time

import structlog

from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from chain.rpc.pool import RpcPool, connect
from config.http_server.rates import RateLimits, parsed
from config.http_server.server import http_server
from config.settings import Settings
from config.values.sms_settings import SMS_PREFIX, SmsSettings
from protocol.errors import BadSetting, Unavailable, WrongChain
from protocol.types import Contract
from sms.api.application import create_app
from sms.chain import PocoReader
from sms.ipfs import IpfsGateway
from sms.properties import read_properties
from sms.provision import provisioner, public_url
from sms.service import SecretService
from sms.store import choice
from sms.store.port import SecretStore
from sms.vault import Vault

log = structlog.get_logger(__name__)

#: Seconds between two tries to reach chain and store at start.
RETRY_SECONDS = 1.0


def run(settings: Settings, sms: SmsSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises BadSetting, WrongChain before anything listens."""
    rpc = connect(settings)
    service = open_service(settings, sms, rpc)
    rates = rates_of(settings, sms)
    _prepare(settings, sms, service, Hub(rpc, _hub(settings)))
    server = http_server(settings, create_app(service, rates), sms.host, sms.port)
    # Once it has ended, uvicorn sends itself the signal again; that must not look like a crash.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    log.info(
        "The secret service listens.",
        action="sms_start",
        url=public_url(sms),
        framework=sms.framework,
        simulation=sms.simulation,
    )
    server.run()


def open_service(settings: Settings, sms: SmsSettings, rpc: Rpc | RpcPool) -> SecretService:
    """The service that the settings describe; connects on first use. Raises BadSetting."""
    store = choice.chosen(settings, sms)
    return SecretService(
        store=store,
        vault=Vault.of(settings, sms),
        chain=PocoReader(Hub(rpc, _hub(settings))),
        provisioner=provisioner(settings, sms, store),
        properties=read_properties(sms),
        files=IpfsGateway(settings.ipfs_gateway),
    )


def rates_of(settings: Settings, sms: SmsSettings) -> RateLimits:
    """Limits of requests by address. Raises BadSetting."""
    return RateLimits(
        {
            "requests": parsed("SLUICE_RATE_REQUESTS", settings.rate_requests),
            "secrets": parsed(f"{SMS_PREFIX}RATE_SECRETS", sms.rate_secrets),
            "tasks": parsed(f"{SMS_PREFIX}RATE_TASKS", sms.rate_tasks),
        }
    )


def _hub(settings: Settings) -> Contract:
    """The hub's address. Raises BadSetting if it is not set."""
    if settings.hub is None:
        raise BadSetting(name="SLUICE_HUB", why="it is not set", fix="Set it to the hub's address.")
    return Contract(settings.hub.lower())


def require_own_chain(store: SecretStore, chain_id: int, sms: SmsSettings) -> None:
    """Raise WrongChain if the store was used for another chain: addresses there are other people's."""
    bound = store.bound_chain(chain_id)
    if bound != chain_id:
        raise WrongChain(
            why=f"the {choice.name_of(sms)} holds secrets of chain {bound}, SLUICE_CHAIN_ID is {chain_id}",
            fix=f"Set {SMS_PREFIX}{choice.setting_of(sms)} to another name, one for each chain.",
        )


def require_own_keys(store: SecretStore, vault: Vault, sms: SmsSettings) -> None:
    """Raise BadSetting if the key file opens nothing of what the store holds, as a new one does.

    Else what is stored from now on would be lost as soon as the right file is back.
    """
    keys = vault.keys.all()
    if store.sealed_otherwise(keys[0].id, 1) and not any(store.uses(key.id) for key in keys):
        raise BadSetting(
            name=f"{SMS_PREFIX}KEY_FILE",
            why=f"it opens nothing of what the {choice.name_of(sms)} holds",
            fix="Put the file back from your copy; if there is none, set "
            f"{SMS_PREFIX}{choice.setting_of(sms)} to a new name.",
        )


def _prepare(settings: Settings, sms: SmsSettings, service: SecretService, hub: Hub) -> None:
    """Wait for chain and store; what it waits for is logged once. Raises WrongChain, BadSetting."""
    logged = ""
    while True:
        try:
            hub.check_chain(settings.model_copy(update={"workerpool": None}))
            service.store.ready()
            require_own_chain(service.store, settings.chain_id, sms)
            require_own_keys(service.store, service.vault, sms)
        except WrongChain:
            raise
        except Unavailable as error:
            if str(error) != logged:
                log.warning("Cannot serve yet.", action="sms_waits", why=str(error))
            logged = str(error)
            time.sleep(RETRY_SECONDS)
        else:
            return
