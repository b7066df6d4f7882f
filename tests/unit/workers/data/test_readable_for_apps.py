"""Apps of images with a user of their own read their inputs, however narrow the worker's own umask is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import read_settings
from tests.unit.workers.assignments import task_id
from tests.unit.workers.sandbox.test_run_app import SPEC
from workers.data.layout import Layout
from workers.sandbox.network import app_names, name_servers
from workers.sandbox.profile import sandbox_of

#: Of hardened systems, and of systemd's services with UMask=.
NARROW = [0o027, 0o077]


@pytest.fixture(params=NARROW, ids=oct)
def narrow(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("narrow")
def test_an_app_of_any_user_may_look_into_its_inputs(tmp_path: Path) -> None:
    folders = Layout(tmp_path).task(task_id(1))
    folders.make()
    assert (mode(folders.inputs), mode(folders.outputs)) == (0o755, 0o777)


@pytest.mark.usefixtures("narrow")
def test_an_isolated_app_of_any_user_may_read_which_name_servers_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_servers, "of_containers", lambda: ["192.0.2.53"])
    spec = replace(SPEC, sandbox=sandbox_of(read_settings(sandbox="isolated")))
    given = app_names.with_names(Layout(tmp_path), spec)
    assert given.resolv_conf is not None
    assert mode(Path(given.resolv_conf)) == 0o644
