"""SGX without the hardware: enclaves of SCONE and GRAMINE are played, which get their sessions by what their containers
are started with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.enclave.session import APP, POST_COMPUTE, PRE_COMPUTE, SessionPlace
from protocol.errors import RpcUnavailable
from protocol.poco.enclave import recover_enclave
from protocol.poco.tags import SGX_BITS, Framework, make_tag
from protocol.results.digest import file_digest
from protocol.results.error_result import EnclaveFailure, blames_task, cause_code, counts_against_machine
from protocol.types import Wallet
from tests.unit.sms.world import TASK, WORKER
from tests.unit.workers.enclave import programs
from tests.unit.workers.enclave.machine import ANSWER_SHA256, DEVELOPERS, REQUESTERS, Bench
from workers.enclave import surrounding
from workers.enclave.sgx import Sgx, SgxHost
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.spec import ContainerSpec
from workers.task.replicate import Replicate, ReplicateStage

LAS, HEAP = "172.17.0.1:18766", 2**30
FINGERPRINT = "ab" * 32
#: As the SDK 8.24 writes them.
ON_CHAIN: dict[Framework, dict[str, Any]] = {
    Framework.SCONE: {
        "framework": "SCONE",
        "version": "v5",
        "entrypoint": "python /app/app.py",
        "heapSize": HEAP,
        "fingerprint": FINGERPRINT,
    },
    Framework.GRAMINE: {"framework": "GRAMINE", "version": "v5", "fingerprint": FINGERPRINT},
}
PROPERTIES = {
    "v5": {
        "preComputeProperties": {
            "image": "pre:5",
            "fingerprint": FINGERPRINT,
            "entrypoint": "/bin/bash /apploader.sh",
            "heapSizeInBytes": 3 * HEAP,
        },
        "postComputeProperties": {
            "image": "post:5",
            "fingerprint": FINGERPRINT,
            "entrypoint": "/app/post 'two words'",
            "heapSizeInBytes": 4 * HEAP,
        },
    }
}


class Machine:
    """A bench whose machine has SGX, and enclaves that are played: what each container was started with."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Framework) -> None:
        file = folder / "properties.json"
        file.write_text(json.dumps(PROPERTIES))
        tag = make_tag(*SGX_BITS[kind])
        self.kind, self.root, self.specs = kind, folder / "root", dict[str, ContainerSpec]()
        self.bench = Bench(folder, monkeypatch, tag, framework=kind.value, properties_file=file)
        self.on_chain: bytes | Exception = json.dumps(ON_CHAIN[kind]).encode()
        self._sessions: dict[str, dict[str, dict[str, str]]] = {}
        for path in ("dev/sgx_enclave", "dev/sgx_provision", "var/run/aesmd/aesm.socket"):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).touch()
        host = SgxHost(kind, LAS, self.root)
        self.bench.machine.framework = Sgx(self.bench.wire.api, host, NetworkAccess.OPEN, 2 * HEAP)
        self.bench.machine.tag = tag
        monkeypatch.setattr("workers.enclave.enter._app_enclave", self._tell)
        monkeypatch.setattr("workers.enclave.surrounding._run", self._run)
        monkeypatch.setattr("workers.enclave.ask.backoff", lambda _: 0.0)

    def replicate(self) -> Replicate:
        return self.bench.replicate()

    def _tell(self, *_: object) -> bytes:
        if isinstance(self.on_chain, Exception):
            told, self.on_chain = self.on_chain, json.dumps(ON_CHAIN[self.kind]).encode()
            raise told
        return self.on_chain

    def _run(self, service: Any, work: Any, host: Any, door: Any, shape: Any) -> ContainerExit:
        spec = shape(surrounding._spec(service, work, host, service.image_name))
        self.specs[service.name] = spec
        inside = service.model_copy(update={"environment": self.session(spec.environment)[service.name]})
        return programs.run(inside, work, host, door, shape, lambda url: self.bench.served[url])

    def session(self, variables: dict[str, str]) -> dict[str, dict[str, str]]:
        """What an enclave gets that was started with these variables, by service."""
        at, name = ("SCONE_CAS_ADDR", "SCONE_CONFIG_ID") if self.kind is Framework.SCONE else ("sps", "session")
        session = variables[name].partition("/")[0]
        if session not in self._sessions:
            place = SessionPlace(session_id=session, secret_provisioning_url=variables[at])
            taken = self.bench.wire.api.take_session(place)
            self._sessions[session] = {service.name: service.environment for service in taken.services}
        return self._sessions[session]


@pytest.fixture(params=[*SGX_BITS], ids=str)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch, request.param)
    yield made
    made.bench.journal.close()


def test_a_task_is_done_by_enclaves_that_get_their_sessions_themselves_and_the_machine_sees_no_secret(
    machine: Machine,
) -> None:
    found = machine.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    assert found.digest == file_digest(ANSWER_SHA256)
    assert found.enclave_signature is not None
    signer = recover_enclave(found.enclave_signature, WORKER.wallet, TASK, found.digest)
    assert signer == Wallet(found.assignment.enclave_challenge)
    (app,) = machine.bench.environments
    assert machine.session(app)[APP]["IEXEC_APP_DEVELOPER_SECRET"] == DEVELOPERS
    started = repr([app, *(spec.environment for spec in machine.specs.values())])
    assert not [secret for secret in (DEVELOPERS, REQUESTERS) if secret in started]


def test_pre_and_post_compute_start_with_images_entry_points_and_heaps_of_the_properties_and_sgx_devices(
    machine: Machine,
) -> None:
    machine.replicate()
    pre, post = machine.specs[PRE_COMPUTE], machine.specs[POST_COMPUTE]
    assert (pre.image, pre.entrypoint) == ("pre:5", ("/bin/bash", "/apploader.sh"))
    assert (post.image, post.entrypoint) == ("post:5", ("/app/post", "two words"))
    devices = tuple(str(machine.root / path) for path in ("dev/sgx_enclave", "dev/sgx_provision"))
    for spec in (pre, post):
        assert (spec.devices, spec.names, spec.sandbox.network) == (devices, ("worker",), NetworkAccess.OPEN)
    if machine.kind is Framework.GRAMINE:
        assert pre.sockets == post.sockets == (str(machine.root / "var/run/aesmd/aesm.socket"),)
        assert {"sps", "session"} <= pre.environment.keys()
        return
    (app,) = machine.bench.environments
    for service, variables, heap in (
        (PRE_COMPUTE, pre.environment, 3 * HEAP),
        (APP, app, HEAP),
        (POST_COMPUTE, post.environment, 4 * HEAP),
    ):
        assert variables["SCONE_CONFIG_ID"].endswith(f"0000{TASK}/{service}")
        assert (variables["SCONE_HEAP"], variables["SCONE_LAS_ADDR"]) == (str(heap), LAS)
        assert variables["SCONE_CAS_ADDR"] == "http://sms/tee/simulated"
    assert pre.sockets == ()


def nothing(machine: Machine) -> None:
    machine.on_chain = b""


def no_json(machine: Machine) -> None:
    machine.on_chain = b"MRENCLAVE"


def another_kind(machine: Machine) -> None:
    other = next(kind for kind in SGX_BITS if kind is not machine.kind)
    machine.on_chain = json.dumps(ON_CHAIN[other]).encode()


def no_version(machine: Machine) -> None:
    machine.on_chain = json.dumps(ON_CHAIN[machine.kind] | {"version": "v4"}).encode()


def a_large_heap(machine: Machine) -> None:
    machine.on_chain = json.dumps(ON_CHAIN[machine.kind] | {"heapSize": 2 * HEAP + 1}).encode()


@pytest.mark.parametrize(
    ("spoil", "cause", "blamed"),
    [
        (nothing, EnclaveFailure.NO_APP_ENCLAVE, True),
        (no_json, EnclaveFailure.APP_ENCLAVE, True),
        (another_kind, EnclaveFailure.APP_ENCLAVE, True),
        (no_version, "GET_TEE_SERVICES_CONFIGURATION_FAILED", False),
        (a_large_heap, "PRE_COMPUTE_INVALID_ENCLAVE_HEAP_CONFIGURATION", False),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_an_app_whose_enclave_is_none_is_declined_by_the_name_of_iexecs_worker_and_nothing_runs(
    machine: Machine, spoil: Callable[[Machine], None], cause: str, blamed: bool
) -> None:
    spoil(machine)
    found = machine.replicate()
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, cause)
    assert (blames_task(found.cause), counts_against_machine(found.cause)) == (blamed, False)
    assert machine.specs == {}


def test_a_node_or_a_service_that_says_nothing_is_asked_again(machine: Machine) -> None:
    machine.bench.wire.api.store_token()
    machine.bench.wire.instead = [503]
    machine.on_chain = RpcUnavailable(what="a node", why="it does not answer")
    assert machine.replicate().stage is ReplicateStage.COMPUTED


def test_what_a_machine_lacks_for_each_kind_is_told(tmp_path: Path) -> None:
    scone, gramine = SgxHost(Framework.SCONE, None, tmp_path), SgxHost(Framework.GRAMINE, None, tmp_path)
    assert [words.partition(" (")[0] for words in scone.missing(NetworkAccess.PUBLIC)] == [
        "no SGX devices",
        "no local attestation service",
        "apps do not reach the local attestation service",
    ]
    assert [words.partition(" (")[0] for words in gramine.missing(NetworkAccess.NONE)] == [
        "no SGX devices",
        "no service that quotes",
        "apps do not reach the service that attests",
    ]
    for path in ("dev/isgx", "var/run/aesmd/aesm.socket"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    assert scone.devices == (str(tmp_path / "dev/isgx"),)
    assert replace(scone, las=LAS).missing(NetworkAccess.OPEN) == []
    assert gramine.missing(NetworkAccess.PUBLIC) == []
