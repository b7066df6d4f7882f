"""Which machines may offer enclaves, and what the others say."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from structlog.testing import capture_logs

from config.settings import Settings, read_settings
from protocol.errors import BadSetting
from protocol.poco.tags import GPU_BIT, TEE_BIT, Framework, fits, make_tag
from protocol.types import ZERO_HASH
from protocol.wire import PoolConfig
from tests.unit.sms.world import TDX_TAG
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.pool.test_complete_settings import POOL
from workers import machine as machine_process
from workers.context import Machine
from workers.data.layout import Layout
from workers.enclave import launcher
from workers.enclave.choice import chosen
from workers.enclave.images import OWN
from workers.enclave.sgx import SgxHost
from workers.enclave.tdx import AgentGuest
from workers.fitness import doctor
from workers.pool.api import PoolApi
from workers.sandbox.network import egress

#: All images of ours.
OURS = (*OWN.values(), launcher.IMAGE)
SERVING = POOL.model_copy(update={"sms_url": "https://sms.pool.example"})


def settings(**fields: object) -> Settings:
    return read_settings(chain_id=31337, api_url="https://pool.example", **fields)


def machine(own: Settings, pool: PoolConfig = SERVING) -> Machine:
    return Machine(own, WORKER_KEY, pool, PoolApi(own.api_url))


class Images:
    """An engine that has images, or none."""

    def __init__(self, host: str, *names: str) -> None:
        self.host, self.names = host, names

    def has_image(self, name: str) -> bool:
        return name in self.names

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def fit_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine_process, doctor):
        monkeypatch.setattr(module, "Engine", lambda _: Images("unix:///engine", *OURS))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(egress, "why_closed", lambda _: None)


def test_a_machine_offers_enclaves_only_if_it_is_told_to() -> None:
    assert machine(settings()).tag == ZERO_HASH
    offering = machine(settings(enclave="simulated")).tag
    assert fits(TDX_TAG, offering)
    # Other kinds, and a GPU, it does not have.
    assert not fits(make_tag(TEE_BIT, 1 << 1), offering)
    assert not fits(make_tag(GPU_BIT), offering)
    assert fits(make_tag(TEE_BIT, 1 << 3, GPU_BIT), machine(settings(enclave="simulated", gpus="0")).tag)


@pytest.mark.parametrize("chain_id", [1, 134, 42161, 421614])
def test_enclaves_are_simulated_on_no_chain_where_something_is_worth_anything(chain_id: int) -> None:
    own = settings(enclave="simulated").model_copy(update={"chain_id": chain_id})
    with pytest.raises(BadSetting, match=r"SLUICE_ENCLAVE.*development chains only"):
        chosen(own, SERVING, WORKER_KEY)


def test_a_pool_without_a_secret_service_is_told_apart_from_a_machine_without_enclaves() -> None:
    with pytest.raises(BadSetting, match=r"SLUICE_ENCLAVE.*names no secret service"):
        chosen(settings(enclave="simulated"), POOL, WORKER_KEY)
    assert chosen(settings(), POOL, WORKER_KEY) is None


def test_tdx_is_refused_with_what_is_missing_on_this_machine_and_chosen_where_all_is_there(tmp_path: Path) -> None:
    guest = AgentGuest(tmp_path)
    with pytest.raises(BadSetting, match=r"SLUICE_ENCLAVE.*cannot be run here: no TDX guest.*no agent"):
        chosen(settings(enclave="tdx"), SERVING, WORKER_KEY, guest)
    assert [words.partition(" (")[0] for words in guest.missing()] == [
        "no TDX guest",
        "no quotes by the kernel",
        "no agent for sessions",
        "no file system in memory",
    ]
    parts = ("dev/tdx_guest", "sys/kernel/config/tsm/report", "usr/local/bin/secret_provider_agent", "dev/shm/here")
    for path in parts:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert guest.missing() == []
    # On any chain: what a guest gets, it has proved to be one for.
    own = settings(enclave="tdx").model_copy(update={"chain_id": 42161})
    framework = chosen(own, SERVING, WORKER_KEY, guest)
    assert framework is not None
    assert framework.tag == TDX_TAG
    with pytest.raises(BadSetting, match="names no secret service"):
        chosen(own, POOL, WORKER_KEY, guest)


@pytest.mark.parametrize(
    ("user", "engine", "closed", "words"),
    [
        (1000, Images("unix:///engine", *OURS), None, "root on the machine of its Docker engine"),
        (0, Images("tcp://elsewhere:2376", *OURS), None, "root on the machine of its Docker engine"),
        (0, Images("unix:///engine", *OURS), "it is elsewhere", "it is elsewhere.*--pid host --privileged"),
        (
            0,
            Images("unix:///engine", "sluice/pre-compute:1"),
            None,
            "no image sluice/post-compute:1.*sms images",
        ),
        (0, Images("unix:///engine", *OWN.values()), None, "no image sluice/launcher:1.*sms images"),
    ],
    ids=["no root", "elsewhere", "processes of its own", "no image", "no launcher"],
)
def test_enclaves_are_simulated_only_with_an_engine_that_can_run_what_surrounds_an_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user: int, engine: Any, closed: str | None, words: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr(egress, "why_closed", lambda _: closed)
    framework = machine(settings(enclave="simulated")).framework
    assert framework is not None
    with pytest.raises(BadSetting, match=f"SLUICE_ENCLAVE.*{words}"):
        framework.require(engine, Layout(tmp_path / "worker"))


def test_a_folder_that_nothing_may_be_executed_in_is_refused_before_it_holds_the_launcher(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine: Any = Images("unix:///engine", *OURS)
    launcher.require(engine, Layout(tmp_path / "worker"))
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    with pytest.raises(BadSetting, match=f"SLUICE_HOME.*{tmp_path} is mounted with noexec"):
        launcher.require(engine, Layout(tmp_path / "worker"))


@pytest.mark.parametrize("kind", ["scone", "gramine"])
def test_sgx_is_refused_with_what_is_missing_and_offers_its_kind_where_all_is_there(kind: Any, tmp_path: Path) -> None:
    own = settings(enclave=kind, enclave_las="172.17.0.1:18766", app_network="open")
    with pytest.raises(BadSetting, match=rf"SLUICE_ENCLAVE.*{kind.upper()} enclaves cannot be run here: no SGX"):
        chosen(own, SERVING, WORKER_KEY, sgx=SgxHost(Framework[kind.upper()], own.enclave_las, tmp_path))
    for path in ("dev/sgx_enclave", "dev/sgx_provision", "var/run/aesmd/aesm.socket"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    framework = chosen(own, SERVING, WORKER_KEY, sgx=SgxHost(Framework[kind.upper()], own.enclave_las, tmp_path))
    assert framework is not None
    assert fits(make_tag({"scone": 0x3, "gramine": 0x5}[kind]), framework.tag)
    assert not fits(TDX_TAG, framework.tag)


@pytest.mark.usefixtures("fit_engine")
def test_start_refuses_what_cannot_be_run_and_warns_of_a_simulation() -> None:
    with pytest.raises(BadSetting):
        machine_process._require_enclaves(machine(settings(enclave="tdx")))
    with capture_logs() as logged:
        machine_process._require_enclaves(machine(settings(enclave="simulated")))
        machine_process._require_enclaves(machine(settings()))
    assert [line["action"] for line in logged] == ["enclave_simulated"]


def test_a_machine_whose_enclaves_are_refused_reveals_its_votes_first_and_offers_nothing_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, BadSetting]] = []

    def refuse(refused: Machine, refusal: BadSetting) -> NoReturn:
        seen.append((refused.tag, refusal))
        raise refusal

    monkeypatch.setattr(machine_process, "load_key", lambda _: WORKER_KEY)
    monkeypatch.setattr(machine_process, "_prepared", lambda *_: machine(settings(enclave="tdx")))
    monkeypatch.setattr(machine_process, "_refuse", refuse)
    with pytest.raises(BadSetting), machine_process.signed_in(settings(enclave="tdx")):
        pytest.fail("it was signed in")
    assert [(tag, refusal.fields["name"]) for tag, refusal in seen] == [(ZERO_HASH, "SLUICE_ENCLAVE")]


@pytest.mark.usefixtures("fit_engine")
@pytest.mark.parametrize(
    ("enclave", "ok", "words"),
    [
        ("none", True, "go to other machines"),
        ("simulated", True, "this machine's owner can read"),
        ("tdx", False, "cannot be run here"),
    ],
)
def test_doctor_says_which_kind_runs_here(enclave: Any, ok: bool, words: str) -> None:
    asked = machine(settings(enclave=enclave))
    found = doctor._found("enclave", lambda: doctor.enclave(asked))
    assert (found.part, found.ok) == ("enclave", ok)
    assert words in found.says
