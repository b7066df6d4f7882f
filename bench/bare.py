"""The bare container rate: how many no-op containers this machine's Docker engine makes, runs and removes a minute.

What a task costs beyond its container shows only against this, measured in the same run: machines differ by far more
than releases of Sluice do.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

#: Containers of one measurement: some ten seconds on two cores.
CONTAINERS = 40
#: What the demo's app reads.
_ENVIRONMENT = {
    "IEXEC_IN": "/iexec_in",
    "IEXEC_OUT": "/iexec_out",
    "IEXEC_BOT_TASK_INDEX": "0",
    "IEXEC_BOT_SIZE": "1",
    "IEXEC_DATASET_FILENAME": "",
    "IEXEC_INPUT_FILES_NUMBER": "0",
}


def containers_per_minute(docker_host: str, image: str, *, at_once: int, count: int = CONTAINERS) -> float:
    """Create, start, await, read and remove `count` containers of `image` that do nothing, `at_once` at a time.

    Nothing of the sandbox: Docker's own network and no limits, only the two folders that every app has.
    """
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(at_once) as threads:
        folders = [Path(home) / str(number) for number in range(count)]
        for folder in folders:
            (folder / "in").mkdir(parents=True)
            (folder / "out").mkdir()
        api = docker.APIClient(base_url=docker_host, version="auto", num_pools=at_once)
        try:
            started = time.monotonic()
            for exit_code in threads.map(lambda folder: _run(api, image, folder), folders):
                assert exit_code == 0, f"a bare container of {image} ended with {exit_code}"
            seconds = time.monotonic() - started
        finally:
            api.close()
    return 60 * count / seconds


def _run(api: docker.APIClient, image: str, folder: Path) -> int:
    """One container's life; its exit code."""
    binds = [f"{folder / 'in'}:/iexec_in:ro", f"{folder / 'out'}:/iexec_out:rw"]
    made = api.create_container(
        image,
        command=["noop"],
        environment=_ENVIRONMENT,
        host_config=api.create_host_config(binds=binds),
    )
    container = str(made["Id"])
    api.start(container)
    exit_code = int(api.wait(container)["StatusCode"])
    api.logs(container)
    api.remove_container(container, v=True)
    return exit_code
