"""How a session reaches the enclaves of its task.

    attested     posted to the service that attests enclaves, which is told to the worker (iExec SMS 9.3, TDX)
    simulated    kept here; the worker itself fetches it once: on development chains only

With neither, no session is made: nobody could say that it is an enclave that asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import httpx

from config.connections.http_client import http_client
from config.settings import Settings
from config.values.sms_settings import SMS_PREFIX, SmsSettings
from protocol.enclave.session import Session, SessionError
from protocol.enclave.simulation import require_development
from protocol.errors import BadSetting, NoSession
from sms.store.port import OpenSession, SecretStore

#: Below `SLUICE_SMS_URL`: where workers fetch simulated sessions.
SIMULATED_PATH = "/tee/simulated"
#: Seconds for the service that attests enclaves to take a session.
STORE_SECONDS = 10.0


class Provisioner(Protocol):
    """Delivers sessions to enclaves, in one of the ways above."""

    def deliver(self, session: Session, opened: OpenSession) -> str:
        """Put a session where its enclave fetches it; returns the address for the worker. Raises NoSession."""

    def close(self) -> None:
        """Close the connections to what sessions are delivered to."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """Keeps that there is a session; what is in it is put together when its worker fetches it."""

    store: SecretStore
    url: str

    def deliver(self, session: Session, opened: OpenSession) -> str:
        """Put a session where its enclave fetches it; returns the address for the worker. Raises NoSession."""
        del session
        self.store.add_session(opened)
        return self.url + SIMULATED_PATH

    def close(self) -> None:
        """Do nothing: no connection is open."""


class Attested:
    """Posts sessions to SLUICE_SMS_SESSION_STORE."""

    def __init__(self, store_url: str, attestation_url: str) -> None:
        self._http = http_client(store_url, timeout=STORE_SECONDS, answer_seconds=lambda: STORE_SECONDS)
        self._attestation_url = attestation_url

    def deliver(self, session: Session, opened: OpenSession) -> str:
        """Put a session where its enclave fetches it; returns the address for the worker. Raises NoSession."""
        del opened
        try:
            self._http.post("/session", json=session.model_dump()).raise_for_status()
        except httpx.HTTPError as error:
            why = f"the service that attests enclaves did not take it ({type(error).__name__})"
            raise NoSession(error=SessionError.NOT_DELIVERED, why=why) from None
        return self._attestation_url

    def close(self) -> None:
        """Close the connections to the session store."""
        self._http.close()


class Unattested:
    """Delivers nothing: the provisioner of a service whose operator has set up neither way."""

    def deliver(self, session: Session, opened: OpenSession) -> str:
        """Put a session where its enclave fetches it; returns the address for the worker. Raises NoSession."""
        del session, opened
        why = "no service that attests enclaves is set up (SLUICE_SMS_SESSION_STORE)"
        raise NoSession(error=SessionError.NOT_DELIVERED, why=why)

    def close(self) -> None:
        """Do nothing: no connection is open."""


def provisioner(settings: Settings, sms: SmsSettings, store: SecretStore) -> Provisioner:
    """The provisioner that the settings choose. Raises BadSetting."""
    if sms.simulation:
        require_development(settings.chain_id, f"{SMS_PREFIX}SIMULATION")
        return Simulated(store, public_url(sms))
    if sms.session_store is None:
        return Unattested()
    if sms.framework != "TDX":
        why = f"sessions of {sms.framework} have another form, which is not made here"
        raise BadSetting(name=f"{SMS_PREFIX}SESSION_STORE", why=why, fix=f"Use iExec's SMS for {sms.framework}.")
    if sms.attestation_url is None:
        why = "it is not set, and SLUICE_SMS_SESSION_STORE is"
        raise BadSetting(name=f"{SMS_PREFIX}ATTESTATION_URL", why=why, fix="Set it to where enclaves get sessions.")
    return Attested(sms.session_store, sms.attestation_url)


def public_url(sms: SmsSettings) -> str:
    """Where workers reach this service."""
    return (sms.url or f"http://{sms.host}:{sms.port}").rstrip("/")
