"""Results in the machine's own IPFS node: pinned as long as a pool keeps results."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from config.connections.ipfs import Ipfs
from protocol.wire import Mode
from tests.integration.conftest import IpfsNode
from tests.unit.workers.assignments import assignment, task_id
from workers.data.layout import Layout
from workers.task import own_copy
from workers.task.journal import Journal

#: Long ago: what other tests have pinned is younger.
NOW = 1_000_000_000.0
DAY = 86_400.0


def test_a_copy_is_unpinned_when_its_days_are_over_and_nothing_else_of_the_owner_is(
    ipfs: IpfsNode, tmp_path: Path
) -> None:
    layout = Layout(tmp_path)
    layout.make()
    with closing(Journal(layout.journal)) as journal, closing(Ipfs(ipfs.api)) as node:
        journal.add(assignment(1, mode=Mode.SOLO), NOW)
        (replicate,) = journal.all_replicates()
        packed = layout.task(replicate.task_id).zip
        packed.parent.mkdir(parents=True)
        packed.write_bytes(secrets.token_bytes(64))
        theirs = tmp_path / "theirs"
        theirs.write_bytes(secrets.token_bytes(64))
        kept = node.add(theirs, "theirs")
        # A name like ours, without a time.
        node.pin(kept, f"sluice-result-{task_id(2)}-soon")
        machine = SimpleNamespace(settings=SimpleNamespace(worker_ipfs_api=ipfs.api))
        context: Any = SimpleNamespace(layout=layout, machine=machine, now=lambda: NOW)
        link = own_copy.keep(context, replicate)
        assert link is not None
        copy = link.location.removeprefix("/ipfs/")
        for days, unpinned in ((89.0, 0), (90.1, 1), (90.2, 0)):
            assert own_copy.unpin_old(ipfs.api, 90.0, NOW + days * DAY) == unpinned
            assert node.pinned(copy) == (days < 90)
        assert node.pinned(kept)
        node.unpin(kept)
