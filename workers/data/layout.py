"""Where a machine keeps things on disk, and the lock that makes one process at a time work on a task.

<home>/worker/<wallet>/
    journal.db  lane.db  session.json  pool.json
    pins.json  market.json              chain and contracts of the first start; what gas costs
    transfer.json                       deposit or withdrawal under way
    resolv.conf                         name servers of apps that do not reach the engine's resolver
    lane.wake                           named pipe that wakes the lane
    launcher-<image id>                 program that starts those of confidential tasks, with their secrets
    machine  pinged                     this installation's random name; its last accepted ping (the file's time)
    cache/<sha256>                      datasets, shared by tasks
    locks/<task id>
    tasks/<task id>/in  out  error  result.zip    `in` and `out` are what the container sees; of a task that is computed
                                                  only the result stays
                    sealed  ended.json            of a task for an enclave: datasets and input files as they came; how
                                                  its app ended, once its container is gone
                    opened                        and since which start of the system `in` is known to hold them opened
"""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from config.whole_files import give_to_owner_of, keep, write_whole
from protocol.errors import StorageUnavailable
from protocol.types import TaskId, Wallet

#: The container may run as any user, so it must be able to write here whatever its uid; the parents are closed.
OPEN_TO_CONTAINER = 0o777
#: The same for what it only reads, whatever this process's umask is: an app that cannot would be voted to have failed.
READABLE_BY_CONTAINER = 0o755
OWNER_ONLY = 0o700
#: Levels of folders below a folder that are deleted without a process; each keeps a file open meanwhile.
SHALLOW = 8


@dataclass(frozen=True, slots=True)
class TaskFolders:
    """The files of one task."""

    root: Path

    @property
    def inputs(self) -> Path:
        """Folder bound to `/iexec_in`, read-only."""
        return self.root / "in"

    @property
    def outputs(self) -> Path:
        """Folder bound to `/iexec_out`."""
        return self.root / "out"

    @property
    def errors(self) -> Path:
        """Folder with the files of an error result, which is uploaded in place of `outputs`. The app never sees it."""
        return self.root / "error"

    @property
    def sealed(self) -> Path:
        """Folder with datasets and input files as they were fetched, which pre-compute puts into `inputs`."""
        return self.root / "sealed"

    @property
    def ended(self) -> Path:
        """File that says how the app of a task for an enclave ended."""
        return self.root / "ended.json"

    @property
    def opened(self) -> Path:
        """File that says since which start of the system `inputs` is known to hold what pre-compute puts there
        (`verified`).
        """
        return self.root / "opened"

    @property
    def zip(self) -> Path:
        """The result's zip as it is uploaded."""
        return self.root / "result.zip"

    def make(self) -> None:
        """Create the folders; keeps what is there (a container may be running)."""
        if not self.root.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            # A result in it is on disk only if the folder is.
            keep(self.root.parent)
        self.inputs.mkdir(parents=True, exist_ok=True)
        self.inputs.chmod(READABLE_BY_CONTAINER)
        self.outputs.mkdir(parents=True, exist_ok=True)
        self.outputs.chmod(OPEN_TO_CONTAINER)

    def clear_outputs(self) -> None:
        """Empty the output folder for another attempt. Raises StorageUnavailable."""
        discard(self.outputs)
        self.outputs.mkdir(parents=True)
        self.outputs.chmod(OPEN_TO_CONTAINER)

    def clear_errors(self) -> Path:
        """Empty the folder of the error result, make it if absent, and return it. Raises StorageUnavailable."""
        discard(self.errors)
        self.errors.mkdir(parents=True)
        return self.errors

    def move_away(self) -> Path | None:
        """Move all but the result into a new folder, out of the way of a later attempt. Returns that folder, None if
        there was nothing to move. Raises OSError.
        """
        if not self.root.exists():
            return None
        aside = Path(tempfile.mkdtemp(prefix="over-", dir=self.root))
        for path in (self.inputs, self.outputs, self.errors, self.sealed, self.ended):
            if path.exists():
                path.rename(aside / path.name)
        return aside

    def remove(self) -> None:
        """Delete all of the task's files."""
        discard(self.root)


def discard(folder: Path) -> None:
    """Delete a folder that an app or a download filled. Raises StorageUnavailable if the system refuses.

    What apps mostly leave, a few files, goes without a process; what is left then by `rm`, which needs neither many
    open files nor a deep stack for folders that are nested thousands deep.
    """
    with suppress(OSError):
        _delete_shallow(str(folder), None, SHALLOW)
    if folder.exists():
        ended = subprocess.run(["rm", "-rf", "--", str(folder)], capture_output=True, check=False)
        if ended.returncode != 0:
            # `rm: cannot remove NAME: REASON`, of which the name may be an app's, and the reason become public.
            why = ended.stderr.decode(errors="replace").strip().rpartition(": ")[2][:200]
            raise StorageUnavailable(what=folder, why=why)


def _delete_shallow(name: str, within: int | None, levels: int) -> None:
    """Delete the folder `name` in the open folder `within`, with at most so many levels of folders in it.

    Not `shutil.rmtree`: that keeps a file open for each level, and waits for ever at a pipe that an app puts in a
    folder's place. No symbolic link is followed, so that nothing else is deleted. Raises OSError, also if something is
    left.
    """
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        with os.scandir(opened) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=opened)
                elif levels:
                    _delete_shallow(entry.name, opened, levels - 1)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=within)


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one machine's wallet. `root` is absolute: Docker binds need it."""

    root: Path
    #: Bytes that must stay free on the disks that apps write to.
    least_free: int = 2**30

    @property
    def journal(self) -> Path:
        """SQLite file of the journal: the machine's replicates."""
        return self.root / "journal.db"

    @property
    def lane(self) -> Path:
        """SQLite file with intents and nonces of the wallet's lane."""
        return self.root / "lane.db"

    @property
    def lane_wakeup(self) -> Path:
        """Named pipe: wakes the process that runs the lane."""
        return self.root / "lane.wake"

    @property
    def session(self) -> Path:
        """JSON file with API token and broker password, mode 600."""
        return self.root / "session.json"

    @property
    def pool(self) -> Path:
        """JSON file with the pool's `/config` as of this machine's last start."""
        return self.root / "pool.json"

    @property
    def pins(self) -> Path:
        """JSON file with chain id, hub and workerpool of this machine's first start: a pool that names others is
        refused.
        """
        return self.root / "pins.json"

    @property
    def market(self) -> Path:
        """JSON file with gas prices as this machine last read them."""
        return self.root / "market.json"

    @property
    def unconfined(self) -> Path:
        """Text file with the answer of `why_unconfined`; absent while apps are confined."""
        return self.root / "unconfined"

    def why_unconfined(self) -> str | None:
        """Why apps cannot be kept off this machine's network now, in words; None if they are."""
        try:
            return self.unconfined.read_text()
        except FileNotFoundError:
            return None

    @property
    def unfit(self) -> Path:
        """Text file with the answer of `why_unfit`; absent while the machine is fit."""
        return self.root / "unfit"

    def why_unfit(self) -> str | None:
        """Why no vote of this machine could be sent, or come in time, by its last checkup; None if one could."""
        try:
            return self.unfit.read_text()
        except FileNotFoundError:
            return None

    @property
    def transfer(self) -> Path:
        """JSON file with a deposit or withdrawal whose end was not printed yet."""
        return self.root / "transfer.json"

    @property
    def cache(self) -> Path:
        """Folder of downloaded datasets, each named by its sha256."""
        return self.root / "cache"

    @property
    def locks(self) -> Path:
        """Folder of lock files: one for each thing that only one process may work on."""
        return self.root / "locks"

    def task(self, task_id: TaskId) -> TaskFolders:
        """The folders and files of one task."""
        return TaskFolders(self.root / "tasks" / task_id)

    def make(self) -> None:
        """Create the folders, closed to other users of the machine."""
        for folder in (self.root, self.cache, self.locks, self.root / "tasks"):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(OWNER_ONLY)

    def machine_id(self) -> str:
        """Random name of this installation, 32 hex digits; made at its first use."""
        path = self.root / "machine"
        if not path.exists():
            write_whole(path, secrets.token_hex(16))
        return path.read_text()

    def note_ping(self) -> None:
        """Record that the pool has just accepted a ping."""
        (self.root / "pinged").touch()

    def last_ping(self) -> float | None:
        """When the pool last accepted a ping, Unix seconds; None if it never did."""
        try:
            return (self.root / "pinged").stat().st_mtime
        except FileNotFoundError:
            return None

    def delete_lock(self, name: str) -> None:
        """Delete the file of a lock that is not needed any more; only while holding it."""
        (self.locks / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the lock `name`; yields whether it was acquired (always, if `wait`). The kernel releases it when the
        process dies.
        """
        handle = os.open(self.locks / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A command that root gives beside the machine of another user leaves it no lock that it cannot open.
            give_to_owner_of(self.locks, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)


def layout_of(home: Path, wallet: Wallet, least_free: int = 2**30) -> Layout:
    """The layout of `wallet` under the settings' home folder. `least_free`: as of `Layout`."""
    return Layout(home.absolute() / "worker" / wallet, least_free)
