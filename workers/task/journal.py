"""The journal: one SQLite row per replicate, changed only along `replicate.ALLOWED_BEFORE`.

Every change is one conditional UPDATE, so two processes that handle the same message cannot both make the step.
WAL lets the processes of a machine read while one writes; `synchronous=FULL` because a lost row can cost a stake.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from config.connections.sqlite import write_ahead
from protocol.errors import BadSetting
from protocol.types import Hash32, NRlc, Signature, TaskId
from protocol.wire import Assignment, Mode, ResultLink
from workers.task.replicate import ALLOWED_BEFORE, Replicate, ReplicateStage

#: Milliseconds to wait for another process's write, which takes one fsync.
BUSY_MILLISECONDS = 10_000
#: Assignments that a process keeps parsed: as many tasks as a ping can name, some 2 KB each.
PARSED = 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replicates (
    task_id TEXT PRIMARY KEY,
    assignment TEXT NOT NULL,
    stage TEXT NOT NULL,
    digest TEXT,
    callback_data TEXT,
    link TEXT,
    cause TEXT,
    exit_code INTEGER,
    container_id TEXT,
    updated_at REAL NOT NULL,
    enclave_signature TEXT
) STRICT
"""
#: What is kept of tasks that are over, for `sluice worker earnings`. `reward`: nRLC, once the chain was asked.
_ENDED_SCHEMA = """
CREATE TABLE IF NOT EXISTS ended (
    task_id TEXT PRIMARY KEY,
    mode TEXT NOT NULL,
    stage TEXT NOT NULL,
    cause TEXT,
    reward INTEGER,
    ended_at REAL NOT NULL
) STRICT, WITHOUT ROWID
"""
#: nRLC that one vote on a task of a deal locks, as the chain says. Deals never change.
_STAKES_SCHEMA = """
CREATE TABLE IF NOT EXISTS stakes (
    deal_id TEXT PRIMARY KEY,
    stake INTEGER NOT NULL,
    noted_at REAL NOT NULL
) STRICT, WITHOUT ROWID
"""
#: Seconds after which an ended task is deleted: as long as the lane keeps what its transactions cost.
ENDED_SECONDS = 1000 * 3600.0
#: Seconds for which the stake of a deal is kept although no task of it is here: its next task may come.
STAKE_SECONDS = 24 * 3600.0
#: Stages before the vote, and those with one: a machine that works alone has nothing more to send then.
_TO_VOTE = (ReplicateStage.TAKEN, ReplicateStage.RUNNING, ReplicateStage.COMPUTED)
_VOTED = (ReplicateStage.COMMITTED, ReplicateStage.REVEALED)
_COLUMNS = (
    "task_id, assignment, stage, digest, callback_data, link, cause, exit_code, container_id, updated_at,"
    " enclave_signature"
)


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that is over: how far this machine was with it, and what it brought."""

    task_id: TaskId
    mode: Mode
    stage: ReplicateStage
    cause: str | None
    #: nRLC, negative for a stake that was lost; None: the chain was not asked yet.
    reward: int | None
    #: Unix seconds.
    ended_at: float


class Journal:
    """One connection; each process opens its own (SQLite connections do not survive a fork)."""

    def __init__(self, path: Path) -> None:
        """Raises BadSetting for a file that is broken, sqlite3.OperationalError for a disk that is full or fails."""
        self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MILLISECONDS / 1000)
        try:
            self._make()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise BadSetting(
                name="SLUICE_HOME",
                why=f"{path}, which says what this machine has to reveal, is broken ({error})",
                fix="Recover it at once with `sqlite3 FILE .recover | sqlite3 NEW` and put NEW in its place, since"
                " votes that are not revealed in time lose their stake. Without the file the machine starts anew",
            ) from error

    def _make(self) -> None:
        """Make what the file lacks."""
        write_ahead(self._db, BUSY_MILLISECONDS / 1000)
        self._db.execute(_SCHEMA)
        self._add_column()
        self._db.execute(_ENDED_SCHEMA)
        self._db.execute(_STAKES_SCHEMA)
        self._db.execute("CREATE INDEX IF NOT EXISTS ended_by_time ON ended (ended_at)")

    def _add_column(self) -> None:
        """Add the column that a file of an earlier release lacks. Several processes may do so at the same time."""
        if "enclave_signature" not in {row[1] for row in self._db.execute("PRAGMA table_info(replicates)")}:
            try:
                self._db.execute("ALTER TABLE replicates ADD COLUMN enclave_signature TEXT")
            except sqlite3.OperationalError as error:
                # Another process was faster.
                if "duplicate column" not in str(error):
                    raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, assignment: Assignment, now: float) -> Replicate:
        """Store the assignment unless the task is known already; the row as it then stands. `now`: Unix seconds."""
        self._db.execute(
            "INSERT OR IGNORE INTO replicates (task_id, assignment, stage, updated_at) VALUES (?, ?, ?, ?)",
            (assignment.task_id, assignment.model_dump_json(), ReplicateStage.TAKEN, now),
        )
        row = self.find(TaskId(assignment.task_id))
        if row is None:
            raise sqlite3.IntegrityError("a row just inserted is gone")
        return row

    def find(self, task_id: TaskId) -> Replicate | None:
        """The replicate, or None if this machine never had it or has forgotten it."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM replicates WHERE task_id = ?", (task_id,)).fetchone()  # noqa: S608 - constant
        return None if row is None else _replicate(row)

    def all_replicates(self) -> list[Replicate]:
        """Every replicate not yet forgotten, oldest change first."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM replicates ORDER BY updated_at").fetchall()  # noqa: S608 - constant
        return [_replicate(row) for row in rows]

    def costly_before(self, task_id: TaskId) -> list[Replicate]:
        """The replicates stored before that of `task_id` that will still cost gas, or lock stake (`limits.gas_to_come`,
        `limits.locks_stake`); all such ones if the task is not known.

        The ledger counts only these against the task, so that of two tasks that come at once only one counts the other.
        The others, of which a busy machine has hundreds until the pool's answer to its next ping, are not read.
        """
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM replicates"  # noqa: S608 - constant
            " WHERE rowid < ifnull((SELECT rowid FROM replicates WHERE task_id = ?), 9223372036854775807)"
            " AND CASE WHEN stage IN (?, ?, ?) THEN 1 WHEN stage IN (?, ?) THEN json_extract(assignment, '$.mode') = ?"
            " ELSE 0 END",
            (task_id, *_TO_VOTE, *_VOTED, Mode.VOTE),
        ).fetchall()
        return [_replicate(row) for row in rows]

    def mark_running(self, task_id: TaskId, container_id: str | None, now: float) -> bool:
        """TAKEN → RUNNING, before the container is created; again with its id once known. False if the replicate is at
        another stage.
        """
        return self._step(task_id, ReplicateStage.RUNNING, now, container_id=container_id)

    def mark_computed(
        self,
        task_id: TaskId,
        now: float,
        *,
        digest: Hash32,
        callback_data: str | None,
        cause: str | None,
        exit_code: int | None,
        enclave_signature: Signature | None = None,
    ) -> bool:
        """→ COMPUTED: the result zip is on disk. False if the task was aborted meanwhile."""
        return self._step(
            task_id,
            ReplicateStage.COMPUTED,
            now,
            digest=digest,
            callback_data=callback_data,
            cause=cause,
            exit_code=exit_code,
            enclave_signature=enclave_signature,
        )

    def mark_committed(self, task_id: TaskId, now: float) -> bool:
        """→ COMMITTED: the vote is in the lane. False for a task without a result, which has no vote."""
        return self._step(task_id, ReplicateStage.COMMITTED, now)

    def mark_revealed(self, task_id: TaskId, now: float) -> bool:
        """COMMITTED → REVEALED: the reveal is in the lane. False if the replicate is at another stage."""
        return self._step(task_id, ReplicateStage.REVEALED, now)

    def mark_failed(self, task_id: TaskId, cause: str, now: float, *, exit_code: int | None = None) -> bool:
        """→ FAILED: nothing was contributed and nothing will be. False if the replicate may not go there from its
        stage.
        """
        return self._step(task_id, ReplicateStage.FAILED, now, cause=cause, exit_code=exit_code)

    def mark_aborted(self, task_id: TaskId, now: float) -> bool:
        """→ ABORTED, because the scheduler asked for it. False if the replicate may not go there from its stage."""
        return self._step(task_id, ReplicateStage.ABORTED, now)

    def mark_uploaded(self, task_id: TaskId, link: ResultLink, now: float) -> None:
        """Remember where the scheduler stored the result; does not depend on the stage."""
        self._db.execute(
            "UPDATE replicates SET link = ?, updated_at = ? WHERE task_id = ?", (link.model_dump_json(), now, task_id)
        )

    def end(self, task_id: TaskId, now: float) -> None:
        """Delete the row of a task that is over; what became of it is kept for ENDED_SECONDS."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT OR REPLACE INTO ended (task_id, mode, stage, cause, ended_at)"
                " SELECT task_id, json_extract(assignment, '$.mode'), stage, cause, ? FROM replicates"
                " WHERE task_id = ?",
                (now, task_id),
            )
            self._db.execute("DELETE FROM replicates WHERE task_id = ?", (task_id,))
            self._db.execute("DELETE FROM ended WHERE ended_at < ?", (now - ENDED_SECONDS,))

    def ended(self, since: float) -> list[EndedTask]:
        """Tasks that were over at Unix time `since` or later, oldest first."""
        rows = self._db.execute(
            "SELECT task_id, mode, stage, cause, reward, ended_at FROM ended WHERE ended_at >= ? ORDER BY ended_at",
            (since,),
        )
        return [EndedTask(TaskId(row[0]), Mode(row[1]), ReplicateStage(row[2]), row[3], row[4], row[5]) for row in rows]

    def note_rewards(self, rewards: Mapping[TaskId, int]) -> None:
        """Store the reward of ended tasks, nRLC by task id, as read from the chain."""
        self._db.executemany("UPDATE ended SET reward = ? WHERE task_id = ?", [(v, k) for k, v in rewards.items()])

    def stakes(self) -> dict[str, NRlc]:
        """nRLC that a vote locks, by deal id, as far as the chain was asked."""
        return {deal_id: NRlc(stake) for deal_id, stake in self._db.execute("SELECT deal_id, stake FROM stakes")}

    def note_stakes(self, stakes: Mapping[str, NRlc], now: float) -> None:
        """Store what a vote locks, nRLC by deal id, as read from the chain; forget deals without a task here."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO stakes (deal_id, stake, noted_at) VALUES (?, ?, ?)",
                [(deal_id, stake, now) for deal_id, stake in stakes.items()],
            )
            self._db.execute(
                "DELETE FROM stakes WHERE noted_at < ? AND deal_id NOT IN"
                " (SELECT json_extract(assignment, '$.deal_id') FROM replicates)",
                (now - STAKE_SECONDS,),
            )

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Delete rows of tasks that begin anew."""
        self._db.executemany("DELETE FROM replicates WHERE task_id = ?", [(task_id,) for task_id in task_ids])

    def _step(self, task_id: TaskId, stage: ReplicateStage, now: float, **columns: str | int | None) -> bool:
        """Move a replicate to a stage, if it may go there from where it is; whether it did."""
        given = {name: value for name, value in columns.items() if value is not None}
        before = sorted(ALLOWED_BEFORE[stage])
        changes = ", ".join(f"{name} = ?" for name in ("stage", "updated_at", *given))
        marks = ", ".join("?" for _ in before)
        voted = " AND digest IS NOT NULL" if stage is ReplicateStage.COMMITTED else ""
        cursor = self._db.execute(
            f"UPDATE replicates SET {changes} WHERE task_id = ? AND stage IN ({marks}){voted}",  # noqa: S608 - column names
            (stage, now, *given.values(), task_id, *before),
        )
        return cursor.rowcount == 1


def _replicate(row: tuple[str | int | float | None, ...]) -> Replicate:
    """A row as a replicate."""
    task_id, assignment, stage, digest, callback_data, link, cause, exit_code, container_id, updated_at, signed = row
    return Replicate(
        task_id=TaskId(str(task_id)),
        assignment=_assignment(str(assignment)),
        stage=ReplicateStage(str(stage)),
        digest=None if digest is None else Hash32(str(digest)),
        callback_data=None if callback_data is None else str(callback_data),
        link=None if link is None else ResultLink.model_validate_json(str(link)),
        cause=None if cause is None else str(cause),
        exit_code=None if exit_code is None else int(exit_code),
        container_id=None if container_id is None else str(container_id),
        updated_at=float(updated_at or 0.0),
        enclave_signature=None if signed is None else Signature(str(signed)),
    )


@lru_cache(maxsize=PARSED)
def _assignment(text: str) -> Assignment:
    """The assignment in a row. It never changes, and each step of its task, and the limits of others, read it again."""
    return Assignment.model_validate_json(text)
