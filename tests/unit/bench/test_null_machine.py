"""A machine without containers leaves what the demo's app would, and works on the local stack's chain only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.rig.demo_result import honest_files
from bench.rig.null_machine import require_development_chain, write_result
from config.settings import read_settings
from ops.poco.state import CHAIN_ID
from protocol.errors import BadSetting
from workers.sandbox.run_app import AppRun

VARIABLES = {"IEXEC_BOT_TASK_INDEX": "2", "IEXEC_BOT_SIZE": "5"}


@pytest.mark.parametrize("chain_id", [1, 134, 42161])
def test_a_machine_without_containers_refuses_a_public_chain(chain_id: int) -> None:
    with pytest.raises(BadSetting):
        require_development_chain(read_settings(chain_id=chain_id))


def test_a_machine_without_containers_refuses_to_take_the_pools_word_for_the_chain() -> None:
    with pytest.raises(BadSetting):
        require_development_chain(read_settings())


def test_a_machine_without_containers_works_on_the_local_stacks_chain() -> None:
    require_development_chain(read_settings(chain_id=CHAIN_ID))


def test_a_machine_without_containers_leaves_the_result_of_the_demos_app(tmp_path: Path) -> None:
    spec: Any = SimpleNamespace(environment=VARIABLES, command=("noop",), outputs=str(tmp_path))
    ended = write_result(cast("AppRun", SimpleNamespace(spec=spec)), resumed=False)
    assert ended.clean
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == honest_files(2, 5)
