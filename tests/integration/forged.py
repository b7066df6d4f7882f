"""Processes of tests that start in a hundredth of a second: forked from a server that has imported everything once.

A fresh Python that imports a scheduler costs more than a second of CPU, and the tests start a hundred. The server has
no thread and opens nothing, so that its children are as good as fresh; only what reads the settings as it is imported
(`pipeline.celery`, `beat.celery`) is left to them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import beat.watch
import ops.commands.money.tx
import ops.preflight
import pipeline.api.serve
import pipeline.tasks
import workers.machine
from chain.rpc import transport
from config import celery_apps
from ops import cli
from tests.waiting import ample

__all__ = ["Ended", "kill", "preloaded", "sluice", "start"]

preloaded = (
    beat.watch,
    transport,
    celery_apps,
    ops.commands.money.tx,
    ops.preflight,
    pipeline.api.serve,
    pipeline.tasks,
    workers.machine,
)
_forge = get_context("forkserver")
_forge.set_forkserver_preload(["tests.integration.preloaded"])

#: Seconds for a command that answers and ends.
COMMAND_SECONDS = 20.0


def start(
    main: Callable[..., object],
    *args: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | str = os.devnull,
    out: Path | str = os.devnull,
    err: Path | str | None = None,
) -> BaseProcess:
    """Run `main(*args)` in a process and session of its own.

    `env`: its SLUICE_ variables, in place of all that are inherited, and others to be set; None: as inherited.
    `cwd`: its folder, if not this process's. `stdin`: what it reads. `out`, `err`: what its output is appended to;
    `err` is `out` if not given.
    """
    process = _forge.Process(target=_run, args=(main, args, env, cwd, str(stdin), str(out), str(err or out)))
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """`kill -9` it with all of its children."""
    assert process.pid is not None
    # It may have ended, or not have a session yet.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What a command with `--json` printed."""
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """Lines of standard error that are the command's last word, without what it logged before."""
        return [line for line in self.err.splitlines() if line.startswith("sluice: ")]


def sluice(*words: str, env: Mapping[str, str], cwd: Path | None = None, stdin: str = "") -> Ended:
    """Run `sluice WORDS` with these settings and no others, in folder `cwd`; fails the test if it does not end by
    itself. `stdin`: what it reads.
    """
    return _ended(run_sluice, words, env, cwd, stdin)


def celery(*words: str, env: Mapping[str, str], cwd: Path) -> Ended:
    """Run `celery WORDS` likewise, with the apps that are found in folder `cwd`."""
    return _ended(run_celery, words, env, cwd, "")


def _ended(
    main: Callable[[Sequence[str]], None], words: Sequence[str], env: Mapping[str, str], cwd: Path | None, stdin: str
) -> Ended:
    with TemporaryDirectory() as folder:
        read, out, err = Path(folder, "in"), Path(folder, "out"), Path(folder, "err")
        read.write_text(stdin)
        process = start(main, words, env=env, cwd=cwd, stdin=read, out=out, err=err)
        process.join(ample(COMMAND_SECONDS))
        code = process.exitcode
        if code is None:
            kill(process)
        ended = Ended(-1 if code is None else code, out.read_text(), err.read_text())
        assert code is not None, f"{' '.join(words)} did not end by itself: {ended.err}"
        process.close()
        return ended


def run_sluice(words: Sequence[str]) -> None:
    """The main function of `sluice WORDS`, for `start`."""
    sys.exit(cli.run(words))


def run_celery(words: Sequence[str]) -> None:
    """The main function of `celery WORDS`, for `start`."""
    from celery.__main__ import main

    sys.argv = ["celery", *words]
    main()


def _run(
    main: Callable[..., object],
    args: Sequence[object],
    env: Mapping[str, str] | None,
    cwd: Path | None,
    stdin: str,
    out: str,
    err: str,
) -> None:
    os.setsid()
    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        for name in [name for name in os.environ if name.startswith("SLUICE_")]:
            del os.environ[name]
        os.environ.update(env)
    written = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, path, how in ((0, stdin, os.O_RDONLY), (1, out, written), (2, err, written)):
        opened = os.open(path, how, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    # In the place of the empty file that multiprocessing gives its processes: what asks reads it.
    sys.stdin = os.fdopen(0, closefd=False)
    main(*args)
