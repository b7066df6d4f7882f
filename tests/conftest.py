"""How tests are spread over processes by pytest-xdist (`pytest -n 3`)."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped] # it has no types

#: Tests in this folder share one pool, but for those with a pool of their own.
POOL, OWN_POOL = "tests/integration/pool/", "tests/integration/pool/test_faults.py"


class ByFixtures(LoadScopeScheduling):  # type: ignore[misc] # idem
    """Keeps together what shares expensive fixtures: the tests of one file, and all that use the shared pool."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return POOL if file.startswith(POOL) and file != OWN_POOL else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFixtures:
    """Tell xdist to spread tests our way, whatever `--dist` says, and in the order of their files.

    By itself it begins with the files that have most tests; here those are the quickest, and the slow come first.
    """
    config.option.loadscopereorder = False
    return ByFixtures(config, log)
