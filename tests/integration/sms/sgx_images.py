"""Containers of SGX enclaves on a real engine, as iExec's worker starts them. Nothing here has SGX: a shell plays the
images, which have their session as if each had proved what it is, and another device stands for SGX's.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from ops.demo.app_image import build_image
from protocol.enclave.session import FrameworkProperties, SessionPlace
from protocol.enclave.sgx import read_app_enclave
from protocol.errors import TaskDeclined
from protocol.poco.enclave import sign_result
from protocol.poco.tags import SGX_BITS, Framework, make_tag
from protocol.results.digest import file_digest
from protocol.results.params import read_params
from protocol.types import Hash32, TaskId, Wallet
from protocol.wire import Dataset
from tests.integration.sms.others_images import CHALLENGE, signing
from tests.integration.workers.conftest import IMAGE, engine_host
from tests.unit.workers.assignments import assignment
from tests.unit.workers.enclave.test_sgx import HEAP, LAS, ON_CHAIN
from workers.data.download import DownloadPolicy
from workers.data.layout import Layout
from workers.data.outputs import ResultLimits
from workers.enclave.port import Host, Work
from workers.enclave.sgx import Sgx, SgxHost, _SgxEnclave
from workers.enclave.sms_api import TOKEN
from workers.enclave.surrounding import SANDBOX
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image import ImageRules
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.spec import Limits, container_spec
from workers.task.deadline import TaskDeadline

__all__ = ["engine_host"]

PLACE = SessionPlace(session_id="a-session", secret_provisioning_url="cas.example:18765")
DATASET, ROWS, ANSWER = "0x" + "da" * 20, b"rows in clear", b"an answer"
ENTRYPOINT = "/bin/sh '/played program'"


@dataclass
class Played:
    """A machine with SGX, as its containers can see, and a task of one kind of enclave."""

    kind: Framework
    engine: Engine
    root: Path

    def image(self, name: str, script: str) -> str:
        """An image whose own entry point fails; that of its properties is this script."""
        name = f"sluice-test/{name}-{self.kind.lower()}:1"
        dockerfile = f'FROM {IMAGE}\nCOPY ["played program", "/"]\nENTRYPOINT ["/bin/false"]\n'
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for path, content in (("Dockerfile", dockerfile.encode()), ("played program", script.encode())):
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        context.seek(0)
        with closing(DockerClient(base_url=self.engine.host)) as client:
            build_image(client, context, tag=name)
        return name

    def sees(self, service: str, heap: int) -> str:
        """A test of a shell: that a container of this service has what its enclave needs."""
        wanted = {
            Framework.SCONE: {
                "SCONE_CAS_ADDR": PLACE.secret_provisioning_url,
                "SCONE_LAS_ADDR": LAS,
                "SCONE_CONFIG_ID": f"{PLACE.session_id}/{service}",
                "SCONE_HEAP": str(heap),
            },
            Framework.GRAMINE: {"sps": PLACE.secret_provisioning_url, "session": PLACE.session_id},
        }[self.kind]
        checks = [f'test "${name}" = "{value}"' for name, value in wanted.items()]
        checks += [f"test -c {self.root}/dev/{name}" for name in ("sgx_enclave", "sgx_provision")]
        if self.kind is Framework.GRAMINE:
            checks.append(f"test -e {self.root}/var/run/aesmd/aesm.socket")
        return " && ".join(checks)

    def enclave(self, pre: str, post: str) -> _SgxEnclave:
        """The enclave of a task whose pre- and post-compute are these images."""
        layout = Layout(self.root / "worker")
        layout.make()
        given = assignment(
            1,
            tag=make_tag(*SGX_BITS[self.kind]),
            image=IMAGE,
            dataset=Dataset(address=DATASET, url="https://data.example/rows", checksum=Hash32("0x" + "11" * 32)),
            category_seconds=60,
            enclave_challenge=CHALLENGE.wallet,
        )
        task = TaskId(given.task_id)
        layout.task(task).make()
        work = Work(given, read_params(""), layout, TaskDeadline(task, 600.0, lambda: 0.0, lambda: False))
        policy: Any = None
        rules = ImageRules(policy, frozenset({pre, post}))
        host = Host(self.engine, rules, Limits(2**28, 10**9), "test", "0x" + "bb" * 20, lambda: b"")
        service: Any = None
        sgx = Sgx(service, SgxHost(self.kind, LAS, self.root), NetworkAccess.PUBLIC, 2 * HEAP)
        about = read_app_enclave(json.dumps(ON_CHAIN[self.kind]).encode(), self.kind)
        images = {
            f"{name}ComputeProperties": {"image": image, "fingerprint": "ab" * 32, "entrypoint": ENTRYPOINT}
            | {"heapSizeInBytes": heap}
            for name, image, heap in (("pre", pre, 3 * HEAP), ("post", post, 4 * HEAP))
        }
        version = {"teeFramework": self.kind.value, "teeFrameworkVersion": "v5"}
        return _SgxEnclave(work, host, sgx, about, PLACE, FrameworkProperties.model_validate(images | version))


@pytest.fixture(params=[*SGX_BITS], ids=str)
def played(engine_host: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Played]:
    for name in ("sgx_enclave", "sgx_provision"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).symlink_to("/dev/zero")
    (tmp_path / "var/run/aesmd").mkdir(parents=True)
    (tmp_path / "var/run/aesmd/aesm.socket").touch()
    with closing(Engine(engine_host)) as engine:
        yield Played(request.param, engine, tmp_path)


def post_script(played: Played) -> str:
    """Post-compute: what it would get in its session is in the script, also where the result is stored."""
    given = assignment(1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("answer", ANSWER)
    digest = Hash32(file_digest(b"\x07" * 32))
    signature = sign_result(CHALLENGE, Wallet(given.wallet), TaskId(given.task_id), digest)
    computed = json.dumps({"task-id": given.task_id, "result-digest": digest, "enclave-signature": signature})
    model = json.dumps({"chainTaskId": given.task_id, "zip": list(packed.getvalue())})
    signed = signing(given.task_id, given.wallet)["SIGNED"]
    return (
        f"{played.sees('post-compute', 4 * HEAP)} || exit 9\n"
        f"wget -q -O- --header 'Authorization: {TOKEN.decode()}' --post-data '{model}' http://worker:13100/v1/results"
        f" && wget -q -O- --header 'Authorization: {signed}' --post-data '{computed}'"
        f" http://worker:13100/compute/post/{given.task_id}/computed\n"
    )


def test_each_container_has_what_its_enclave_needs_and_the_result_comes_to_this_machine(played: Played) -> None:
    pre = played.image(
        "sgx-pre", f"{played.sees('pre-compute', 3 * HEAP)} || exit 9\nprintf '{ROWS.decode()}' > /iexec_in/{DATASET}\n"
    )
    enclave = played.enclave(pre, played.image("sgx-post", post_script(played)))
    folders, given = enclave.work.folders, enclave.work.assignment
    enclave.pre_compute(DownloadPolicy(gateway="", max_bytes=2**20, allow_private=False))
    assert (folders.inputs / DATASET).read_bytes() == ROWS

    app = container_spec(
        given,
        read_params(json.dumps({"iexec_args": f"sh -c '{played.sees('app', HEAP)}'"})),
        worker_name="test",
        workerpool="0x" + "bb" * 20,
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=Limits(2**28, 10**9),
        sandbox=SANDBOX,
    )
    container = played.engine.create(enclave.app(app))
    try:
        played.engine.start(container)
        assert played.engine.wait(container, 60)
        assert played.engine.state(container).exit_code == 0
    finally:
        played.engine.remove(container)

    (folders.outputs / "answer").write_bytes(ANSWER)
    result = enclave.post_compute(ResultLimits(2**20))
    assert result.digest == Hash32(file_digest(b"\x07" * 32))
    with zipfile.ZipFile(folders.zip) as archive:
        assert archive.read("answer") == ANSWER
    assert played.engine.containers_of(Wallet(given.wallet)) == []


def test_an_enclave_that_gets_no_session_ends_its_task_without_a_vote(played: Played) -> None:
    fails = played.image("sgx-fails", "exit 7\n")
    enclave = played.enclave(fails, fails)
    with pytest.raises(TaskDeclined) as declined:
        enclave.pre_compute(DownloadPolicy(gateway="", max_bytes=2**20, allow_private=False))
    assert declined.value.cause == "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE"
    assert played.engine.containers_of(Wallet(enclave.work.assignment.wallet)) == []
