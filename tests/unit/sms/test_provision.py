"""How sessions reach their enclaves: simulated, or by the service that attests."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from config.settings import read_settings
from config.values.sms_settings import read_sms_settings
from protocol.enclave.session import Session, SessionError
from protocol.errors import BadSetting, NoSession
from protocol.types import TaskId, Wallet
from sms import provision
from sms.provision import Attested, Simulated, provisioner
from sms.store.port import OpenSession
from sms.testing import MemorySecretStore

SESSION = Session(name="id", services=())
OPENED = OpenSession("id", TaskId("0x1"), Wallet("0xa"), Wallet("0xc"), 1.0)


@pytest.mark.parametrize("chain_id", [1, 134, 42161, 421614])
def test_enclaves_are_simulated_on_no_chain_where_something_is_worth_anything(chain_id: int) -> None:
    with pytest.raises(BadSetting, match="SLUICE_SMS_SIMULATION"):
        provisioner(read_settings(chain_id=chain_id), read_sms_settings(simulation=True), MemorySecretStore())


def test_enclaves_are_simulated_only_if_a_setting_says_it() -> None:
    store = MemorySecretStore()
    without = provisioner(read_settings(), read_sms_settings(), store)
    with pytest.raises(NoSession) as refused:
        without.deliver(SESSION, OPENED)
    assert refused.value.fields["error"] == SessionError.NOT_DELIVERED
    assert isinstance(provisioner(read_settings(), read_sms_settings(simulation=True), store), Simulated)
    assert not store.sessions


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"session_store": "http://s"}, "ATTESTATION_URL"),
        ({"session_store": "http://s", "attestation_url": "s:1", "framework": "SCONE"}, "SESSION_STORE"),
    ],
    ids=["no attestation", "SCONE"],
)
def test_half_a_setting_for_attestation_is_refused(given: dict[str, str], named: str) -> None:
    with pytest.raises(BadSetting, match=named):
        provisioner(read_settings(), read_sms_settings(**given), MemorySecretStore())


@pytest.mark.parametrize("status", [200, 500])
def test_an_attested_session_is_posted_and_its_place_told_only_if_it_was_taken(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted = []

    def take(request: httpx.Request) -> httpx.Response:
        posted.append((request.method, request.url.path, request.content))
        return httpx.Response(status)

    def client(url: str, *, timeout: float, answer_seconds: Callable[[], float]) -> httpx.Client:
        assert answer_seconds() == timeout
        return httpx.Client(base_url=url, timeout=timeout, transport=httpx.MockTransport(take))

    monkeypatch.setattr(provision, "http_client", client)
    way = Attested("http://store", "attest.example:443")
    if status == 200:
        assert way.deliver(SESSION, OPENED) == "attest.example:443"
    else:
        with pytest.raises(NoSession):
            way.deliver(SESSION, OPENED)
    way.close()
    assert posted == [("POST", "/session", b'{"name":"id","version":"0.1.0","services":[]}')]
