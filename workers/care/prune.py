"""Removes what no task of the machine needs: files of tasks that are over, containers, datasets in the cache."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import EngineUnavailable, StorageUnavailable
from protocol.types import TaskId, Wallet
from workers.data import dataset_cache
from workers.data.layout import Layout, discard
from workers.sandbox.engine.container import Engine
from workers.task.journal import Journal
from workers.task.replicate import COMPUTING


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that is not needed. `size`: bytes on disk; None: not known. `trouble`: why it could not be removed."""

    kind: str
    name: str
    size: int | None
    trouble: str | None = None


def prune(layout: Layout, wallet: Wallet, docker_host: str | None, *, dry_run: bool) -> Iterator[Leftover]:
    """Remove each leftover (`dry_run`: only name it); safe while the machine works. Raises EngineUnavailable."""
    root = layout.root / "tasks"
    # First the folders: a task that is taken meanwhile has its row before its folder.
    folders = sorted(root.iterdir()) if root.exists() else []
    stages = {}
    if layout.journal.exists():
        with closing(Journal(layout.journal)) as journal:
            stages = {item.task_id: item.stage for item in journal.all_replicates()}
    yield from _folders(layout, folders, set(stages), dry_run=dry_run)
    yield from _cache(layout, dry_run=dry_run)
    engine = Engine(docker_host)
    with closing(engine):
        for task, container in engine.containers_of(wallet):
            if stages.get(task) in COMPUTING:
                continue
            with layout.lock(task, wait=False) as idle:
                if idle:
                    yield _container(engine, container, dry_run=dry_run)


def _folders(layout: Layout, folders: Sequence[Path], known: set[TaskId], *, dry_run: bool) -> Iterator[Leftover]:
    """Remove folders of tasks that the journal does not know; yields each."""
    for folder in folders:
        if folder.name in known:
            continue
        with layout.lock(folder.name, wait=False) as idle:
            if not idle:
                continue
            size, trouble = _size(folder), None
            if not dry_run:
                try:
                    discard(folder)
                    layout.delete_lock(folder.name)
                except StorageUnavailable as error:
                    trouble = str(error)
        yield Leftover("task folder", folder.name, size, trouble)


def _cache(layout: Layout, *, dry_run: bool) -> Iterator[Leftover]:
    """Remove datasets that nobody has used for long; yields each."""
    for cached, stat in dataset_cache.unused(layout.cache, time.time()):
        if not dry_run:
            dataset_cache.remove(cached)
        yield Leftover("dataset", cached.name, stat.st_size)


def _container(engine: Engine, container: str, *, dry_run: bool) -> Leftover:
    """Remove a container of a task that is over."""
    try:
        if not dry_run:
            engine.remove(container)
    except EngineUnavailable as error:
        return Leftover("container", container, None, str(error))
    return Leftover("container", container, None)


def _size(folder: Path) -> int | None:
    """Bytes that a tree takes; `du`, since folders may be nested thousands deep."""
    ended = subprocess.run(["du", "-sk", "--", str(folder)], capture_output=True, check=False)
    first = ended.stdout.split(maxsplit=1)
    return int(first[0]) * 1024 if first else None
