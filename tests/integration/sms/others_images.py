"""Images of pre- and post-compute that are not ours, as a session names them: programs that speak as iExec's do, and
ask once where ours ask again. In place of iExec's, which no registry gives here, a shell.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from ops.demo.app_image import build_image
from protocol.enclave.session import POST_COMPUTE, PRE_COMPUTE, Service, Session
from protocol.errors import TaskDeclined
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import session_message, sign_result
from protocol.results.digest import file_digest
from protocol.results.environment import input_file_name
from protocol.results.params import read_params
from protocol.types import Hash32, TaskId, Wallet
from tests.integration.workers.conftest import IMAGE, engine_host
from tests.unit.workers.assignments import assignment
from workers.data.download import DownloadPolicy
from workers.data.layout import Layout
from workers.data.outputs import ResultLimits
from workers.enclave.port import Host, Work
from workers.enclave.session_enclave import SessionEnclave
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image import ImageRules
from workers.sandbox.spec import Limits
from workers.task.deadline import TaskDeadline

__all__ = ["engine_host"]

CHALLENGE = Key.from_hex("0x" + "33" * 32)
URL, ANSWER = "https://example.com/input", b"an answer"
FETCHES = (
    'name=$(printf %s "$IEXEC_INPUT_FILE_URL_1" | sha256sum | cut -c1-64);'
    ' wget -q -O "$IEXEC_PRE_COMPUTE_OUT/0x$name" "$IEXEC_INPUT_FILE_URL_1"'
)
FAILS = (
    'wget -q -O- --header "Authorization: $SIGNED" --post-data \'{"cause": "PRE_COMPUTE_OUTPUT_FOLDER_NOT_FOUND"}\''
    " http://$WORKER_HOST_ENV_VAR/compute/pre/$IEXEC_TASK_ID/exit; exit 1"
)
STORES = (
    'wget -q -O- --header "Authorization: $RESULT_STORAGE_TOKEN" --post-data "$MODEL" $RESULT_STORAGE_PROXY/v1/results'
    ' && wget -q -O- --header "Authorization: $SIGNED" --post-data "$COMPUTED"'
    " http://$WORKER_HOST_ENV_VAR/compute/post/$IEXEC_TASK_ID/computed"
)


def built(host: str, name: str, script: str) -> str:
    """An image whose entry point is this script, under this name."""
    dockerfile = f"FROM {IMAGE}\nENTRYPOINT {json.dumps(['/bin/sh', '-c', script])}\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile))
    context.seek(0)
    with closing(DockerClient(base_url=host)) as client:
        build_image(client, context, tag=name)
    return name


def entered(engine: Engine, root: Path, service: Service) -> SessionEnclave:
    """A replicate's enclave with a session for one program."""
    layout = Layout(root)
    layout.make()
    given = assignment(
        1, params=json.dumps({"iexec_input_files": [URL]}), category_seconds=60, enclave_challenge=CHALLENGE.wallet
    )
    task = TaskId(given.task_id)
    layout.task(task).make()
    deadline = TaskDeadline(task, time.time() + 600, time.time, lambda: False)
    work = Work(given, read_params(given.params), layout, deadline)
    policy: Any = None
    rules = ImageRules(policy, frozenset({service.image_name}))
    host = Host(engine, rules, Limits(2**28, 10**9), "test", "0x" + "bb" * 20, lambda: b"")
    return SessionEnclave(work, host, Session(name="a-session", services=(service,)))


def signing(task: str, wallet: str) -> dict[str, str]:
    message = to_bytes(session_message(Wallet(wallet), TaskId(task)))
    return {
        "IEXEC_TASK_ID": task,
        "SIGN_WORKER_ADDRESS": wallet,
        "SIGN_TEE_CHALLENGE_PRIVATE_KEY": "0x" + "33" * 32,
        "SIGNED": CHALLENGE.sign_message(message),
    }


def nothing_runs(engine: Engine, enclave: SessionEnclave) -> None:
    assert engine.containers_of(Wallet(enclave.work.assignment.wallet)) == []


def test_a_pre_compute_that_names_input_files_by_what_it_sees_leaves_them_where_the_app_looks(
    engine_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.data.inputs.download", lambda _, target, *__: target.write_bytes(b"an input file"))
    given = assignment(1)
    variables = signing(given.task_id, given.wallet) | {
        "IEXEC_PRE_COMPUTE_OUT": "/iexec_in",
        "IS_DATASET_REQUIRED": "false",
        "IEXEC_INPUT_FILES_NUMBER": "1",
        "IEXEC_INPUT_FILE_URL_1": URL,
    }
    policy = DownloadPolicy(gateway="", max_bytes=2**20, allow_private=False)
    with closing(Engine(engine_host)) as engine:
        image = built(engine_host, "sluice-test/others-pre:1", FETCHES)
        service = Service(name=PRE_COMPUTE, image_name=image, fingerprint="", environment=variables)
        enclave = entered(engine, tmp_path / "good", service)
        enclave.pre_compute(policy)
        inputs = enclave.work.folders.inputs
        assert {path.name: path.read_bytes() for path in inputs.iterdir()} == {input_file_name(URL): b"an input file"}
        nothing_runs(engine, enclave)

        failing = built(engine_host, "sluice-test/others-pre-fails:1", FAILS)
        enclave = entered(engine, tmp_path / "bad", service.model_copy(update={"image_name": failing}))
        with pytest.raises(TaskDeclined) as declined:
            enclave.pre_compute(policy)
        assert declined.value.cause == "PRE_COMPUTE_OUTPUT_FOLDER_NOT_FOUND"
        nothing_runs(engine, enclave)


def test_a_post_compute_that_stores_a_list_of_numbers_brings_the_result_and_its_signature(
    engine_host: str, tmp_path: Path
) -> None:
    given = assignment(1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("answer", ANSWER)
    digest = Hash32(file_digest(b"\x07" * 32))
    signature = sign_result(CHALLENGE, Wallet(given.wallet), TaskId(given.task_id), digest)
    computed = {
        "task-id": given.task_id,
        "result-digest": digest,
        "enclave-signature": signature,
        "callback-data": None,
    }
    variables = signing(given.task_id, given.wallet) | {
        "MODEL": json.dumps({"chainTaskId": given.task_id, "zip": list(packed.getvalue())}),
        "COMPUTED": json.dumps(computed),
    }
    with closing(Engine(engine_host)) as engine:
        image = built(engine_host, "sluice-test/others-post:1", STORES)
        service = Service(name=POST_COMPUTE, image_name=image, fingerprint="", environment=variables)
        enclave = entered(engine, tmp_path, service)
        (enclave.work.folders.outputs / "answer").write_bytes(ANSWER)
        result = enclave.post_compute(ResultLimits(2**20))
        assert (result.digest, result.enclave_signature) == (digest, signature)
        assert enclave.work.folders.zip.read_bytes() == packed.getvalue()
        nothing_runs(engine, enclave)
