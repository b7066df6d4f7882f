"""Apps that are shell scripts: a task with one, computed on a real engine, and what it leaves."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import closing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from docker import DockerClient

from ops.demo.app_image import build_image
from tests.integration.workers.conftest import IMAGE
from tests.unit.workers.assignments import assignment, task_id
from workers.context import WorkerContext
from workers.task.compute import compute
from workers.task.replicate import Replicate


def shell(script: str, **fields: object) -> dict[str, object]:
    """Fields of a task whose app is this shell script (no single quotes in it)."""
    params = json.dumps({"iexec_args": f"sh -c '{script}'"})
    return {"image": IMAGE, "params": params, **fields}


def done(context: WorkerContext, script: str, **fields: object) -> Replicate:
    """Compute the script; the journal's row then."""
    compute(context, assignment(1, **shell(script, **fields)))
    found = context.journal.find(task_id(1))
    assert found is not None
    return found


def result(script: str) -> str:
    """`script`, then computed.json pointing to /iexec_out/r. Escaped once for the shell's double quotes."""
    return script + '; echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'


def zipped(context: WorkerContext) -> dict[str, bytes]:
    """The files in the result of task 1."""
    with zipfile.ZipFile(context.layout.task(task_id(1)).zip) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sha256(content: bytes) -> str:
    """SHA-256 as `0x` hex: the digest of a result that is one file."""
    return "0x" + hashlib.sha256(content).hexdigest()


def built(engine_host: str, tag: str, dockerfile: str, **files: bytes) -> None:
    """Have the engine make an image of this Dockerfile and these executable files."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, content in {"Dockerfile": dockerfile.encode(), **files}.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    context.seek(0)
    with closing(DockerClient(base_url=engine_host)) as client:
        build_image(client, context, tag=tag)


class serving:  # noqa: N801 - used as a verb
    """An HTTP server for a folder."""

    def __init__(self, folder: Path) -> None:
        class Quiet(SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type] # passed on as given

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
