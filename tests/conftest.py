"""How tests are spread over processes (`pytest -n 3 --dist loadgroup`)."""

from __future__ import annotations

import pytest


# First: the groups must be there when xdist reads them.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares expensive fixtures: tests of one file, and all that use the pool of `hall`."""
    for item in items:
        shared = "hall" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("hall" if shared else item.nodeid.partition("::")[0]))
