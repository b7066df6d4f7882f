"""The programs of `enclaves/` and their images: two builds are the same, their own tests hold, and they agree with
`openssl` and with the other implementation in Python.
"""

from __future__ import annotations

import base64
import io
import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from docker import DockerClient

from ops.stack import enclave_images, tools
from ops.stack.go_modules import GoProgram, go
from protocol.errors import TaskFailure
from protocol.ethereum.hexbytes import to_bytes, to_bytes_leniently, to_hex
from protocol.ethereum.signing import Key
from protocol.poco.enclave import session_message, sign_result
from protocol.results.environment import input_file_name
from protocol.types import Hash32, TaskId
from tests.integration.sms.service import load_surroundings
from tests.integration.workers.conftest import engine_host
from tests.unit.protocol.enclave.test_enclave_cipher import PRIVATE, aes, cases, openssl, pem
from workers.data import outputs
from workers.data.outputs import ResultLimits
from workers.enclave.images import OWN
from workers.sandbox.engine.container import Engine

__all__ = ["engine_host"]

SOURCES = tools.root() / "enclaves"
VECTORS = GoProgram("vectors", SOURCES, "./cmd/vectors", takes="test vectors", fix="Let Go reach its proxy.")
#: Folders that apps might leave.
FOLDERS = 60
TASK = TaskId("0x" + "1b" * 32)


def asked(requests: Iterable[dict[str, Any]]) -> Iterator[Any]:
    """What the Go code answers each request, or its error as text."""
    lines = "\n".join(json.dumps(request) for request in requests)
    done = subprocess.run([VECTORS.build()], input=lines, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        answer = json.loads(line)
        # No bytes are null in Go's JSON.
        yield answer["error"] if "error" in answer else answer["found"] or ""


def text(content: bytes) -> str:
    """Bytes as Go's JSON has them."""
    return base64.b64encode(content).decode()


def test_two_builds_in_two_folders_make_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_host: str
) -> None:
    found = []
    for number in (1, 2):
        root = tmp_path / f"checkout {number}"
        shutil.copytree(SOURCES, root / "enclaves")
        monkeypatch.setattr(tools, "cache_folder", lambda at=root: at / "cache")
        found.append([enclave_images.build(service, root / "enclaves") for service in enclave_images.IMAGES])
    first, second = found
    assert [image.image_id for image in first] == [image.image_id for image in second]
    assert [image.archive() for image in first] == [image.archive() for image in second]
    assert not [image for image in first if str(tmp_path).encode() in image.layer.read_bytes()]
    # The engine calls them by the same id, and they have one file.
    load_surroundings(engine_host)
    with closing(Engine(engine_host)) as engine:
        assert [engine.image_id(image.name) for image in first] == [image.image_id for image in first]


def test_the_sources_are_formatted_pass_vet_and_their_own_tests(tmp_path: Path) -> None:
    compiler = go(SOURCES)
    formatter = compiler.with_name("gofmt")
    if formatter.exists():
        assert subprocess.run([formatter, "-l", SOURCES], capture_output=True, text=True, check=True).stdout == ""
    for words in (["vet", "./..."], ["test", "./..."], ["mod", "verify"]):
        done = subprocess.run(
            ["env", "CGO_ENABLED=0", compiler, *words], cwd=SOURCES, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_hundred_datasets_are_those_of_openssl_and_open_again() -> None:
    given = [(key, iv, b"".join(pieces)) for key, iv, pieces in cases(1)]
    theirs = [iv + aes("-e", key, iv, content) for key, iv, content in given]
    encrypts = [{"do": "encrypt", "key": text(key), "iv": text(iv), "content": text(it)} for key, iv, it in given]
    decrypts = [
        {"do": "decrypt", "key": text(key), "content": text(file)}
        for (key, _, _), file in zip(given, theirs, strict=True)
    ]
    assert list(asked(encrypts)) == [text(file) for file in theirs]
    assert list(asked(decrypts)) == [text(content) for _, _, content in given]
    cut = [{**asks, "content": text(file[:-1])} for asks, file in zip(decrypts, theirs, strict=True)]
    assert {*asked(cut)} == {"the file was cut, or does not open with this key"}


def test_openssl_opens_a_hundred_results_with_the_beneficiarys_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    given = [(key, iv, b"".join(pieces)) for key, iv, pieces in cases(2)]
    public = pem(PRIVATE.public_key())
    seals = [
        {"do": "seal", "public": public, "key": text(key), "iv": text(iv), "content": text(content)}
        for key, iv, content in given
    ]
    for (key, iv, content), found in zip(given, asked(seals), strict=True):
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(found))) as archive:
            assert archive.namelist() == ["aes-key.rsa", "iexec_out.zip.aes"]
            wrapped, sealed = archive.read("aes-key.rsa"), archive.read("iexec_out.zip.aes")
        assert openssl("pkeyutl", "-decrypt", "-inkey", str(path), given=wrapped) == key
        assert sealed[:16] == iv
        assert aes("-d", key, iv, sealed[16:]) == content


def test_signatures_and_names_are_those_of_the_worker() -> None:
    draw = random.Random(3)
    requests, wanted = list[dict[str, Any]](), list[Any]()
    for _ in range(50):
        secret, task, digest = (draw.randbytes(32) for _ in range(3))
        key, wallet = Key.from_hex(to_hex(secret)), Key.from_hex(to_hex(draw.randbytes(32))).wallet
        found = TaskId(to_hex(task))
        requests.append({"do": "sign", "key": text(secret), "task": found, "wallet": wallet, "content": text(digest)})
        session = key.sign_message(to_bytes(session_message(wallet, found)))
        wanted.append([session, sign_result(key, wallet, found, Hash32(to_hex(digest)))])
    for words in ("", "0x", "0x1", "é", "0xZ", "\U0001f600", "challenge", "https://example.com/file.txt", "0x12345"):
        requests += [{"do": "hex", "text": words}, {"do": "input name", "text": words}]
        wanted += [text(to_bytes_leniently(words)), input_file_name(words)]
    assert list(asked(requests)) == wanted


def left(draw: random.Random, folder: Path) -> None:
    """What some app leaves: files and folders in folders, links, long names, and a computed.json that may be wrong."""
    names = ["a", "B.txt", "10", "9", "é", "\U0001f600", "\uff5e", "a b", "n" * 31]
    for _ in range(draw.randrange(8)):
        place = folder.joinpath(*draw.sample(["x", "y", "z"], draw.randrange(3)))
        place.mkdir(parents=True, exist_ok=True)
        name = draw.choice(names if draw.random() < 0.95 else ["n" * 32, "a\\b", "C:"])
        (place / name).write_bytes(draw.randbytes(draw.randrange(2000)))
    if draw.random() < 0.3:
        (folder / "link").symlink_to("/etc/passwd")
    said: Any = draw.choice(["", "/", "/x", "/x/y", "/a", "/./a", "//x//", "/nothing", "/../a", "o"])
    said = {"deterministic-output-path": f"/iexec_out{said}"}
    if draw.random() < 0.2:
        said = draw.choice(
            [{}, [], None, {"deterministic-output-path": 1}, {"Deterministic-Output-Path": "/iexec_out"}]
        )
    (folder / "computed.json").write_text(json.dumps(said))


def test_results_that_apps_leave_have_the_same_digest_or_the_same_cause_as_in_python(tmp_path: Path) -> None:
    draw, folders = random.Random(4), list[Path]()
    for number in range(FOLDERS):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        left(draw, folders[-1])
    good = 0
    for folder, found in zip(folders, asked({"do": "pack", "folder": str(each)} for each in folders), strict=True):
        try:
            packed = outputs.pack(TASK, folder, tmp_path / "zip", callback=False, result_limits=ResultLimits(2**30))
        except TaskFailure as failure:
            assert isinstance(found, str), failure
            assert found.partition(":")[0] == failure.cause
            continue
        digest, ours = found
        assert digest == packed.digest
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(ours))) as one, zipfile.ZipFile(tmp_path / "zip") as other:
            assert {name: one.read(name) for name in one.namelist()} == {
                name: other.read(name) for name in other.namelist()
            }
            assert {info.date_time for info in one.infolist()} == {info.date_time for info in other.infolist()}
        good += 1
    assert FOLDERS // 5 < good < FOLDERS


@pytest.mark.parametrize("service", OWN)
def test_an_image_ends_with_the_code_that_says_what_it_lacks(service: str, engine_host: str) -> None:
    load_surroundings(engine_host)
    with closing(DockerClient(base_url=engine_host)) as client:
        nothing, task = dict[str, str](), {"IEXEC_TASK_ID": str(TASK)}
        for variables, code in ((nothing, 3), (task, 2)):
            made = client.containers.create(OWN[service], environment=variables, network_mode="none", read_only=True)
            try:
                made.start()
                assert made.wait()["StatusCode"] == code
            finally:
                made.remove(force=True)
