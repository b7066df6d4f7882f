"""`sluice` on the PATH of a test's shell: a small program that has the fork server run the command in its place.

A page's shell types two dozen commands, each of which would import Sluice: a second of CPU. What is started for good is
executed as it is: `sluice scheduler run`, `sluice worker run`, `sluice sms run`.

    shell ─► program ── pid, folder, environment, words ──► door (a thread here) ─► tests.integration.forged.start
                     ◄────────── pid, exit code ──────────
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from threading import Thread

from tests.integration import forged

_PROGRAM = """#!{python} -SE
import json, os, signal, socket, sys
words = sys.argv[1:]
if words[1:2] == ["run"]:
    os.execv({sluice!r}, ["sluice", *words])
door = socket.socket(socket.AF_UNIX)
door.connect({door!r})
door.sendall(json.dumps([os.getpid(), os.getcwd(), dict(os.environ), words]).encode() + b"\\n")
answers = door.makefile()
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(pid, number))
sys.exit(int(answers.readline()))
"""


class _Command(StreamRequestHandler):
    """One command: it writes to what its caller's output leads to, and has its caller's environment and folder."""

    def handle(self) -> None:
        """Run it, and say how it ended."""
        pid, folder, environment, words = json.loads(self.rfile.readline())
        stdin, out, err = (f"/proc/{pid}/fd/{number}" for number in range(3))
        process = forged.start(
            forged.run_sluice, words, env=environment, cwd=Path(folder), stdin=stdin, out=out, err=err
        )
        self.wfile.write(f"{process.pid}\n".encode())
        process.join()
        self.wfile.write(f"{process.exitcode}\n".encode())
        process.close()


@contextmanager
def sluice_program(path: Path, door: Path) -> Iterator[None]:
    """There is such a program at `path` in the block. `door`: where its socket may be, in fewer than 100 characters."""
    real = Path(sys.executable).with_name("sluice")
    path.write_text(_PROGRAM.format(python=sys.executable, sluice=str(real), door=str(door)))
    path.chmod(0o700)
    with ThreadingUnixStreamServer(str(door), _Command) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
