"""What the demo prepares beside its deals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ops.demo import run
from ops.pool import on_chain
from tests.integration.conftest import Chain


def test_the_demos_scheduler_has_rlc_to_deposit(chain: Chain) -> None:
    place = on_chain.prepare(chain.rpc, chain.at, chain_id=31337, workers=0, image="none")
    pool: Any = SimpleNamespace(on_chain=place)
    site: Any = SimpleNamespace(addresses=chain.at, chain_id=31337)
    run._fill_pocket(chain.rpc, pool, site)
    assert chain.hub.rlc(chain.hub.token(), place.scheduler.key.wallet) == run.POCKET
