"""What commands go by that look into a machine while its pool is away."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import Settings, read_settings
from protocol.errors import BadSetting, PoolUnavailable
from protocol.wire import PoolConfig
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.data.layout import layout_of
from workers.pool.api import PoolApi
from workers.pool.saved_config import save_pool_config, settings_from_pool


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    layout_of(tmp_path, WORKER_KEY.wallet).make()
    return read_settings(home=tmp_path, private_key="0x" + "11" * 32, api_url="https://pool.example")


def away(_: PoolApi) -> PoolConfig:
    raise PoolUnavailable(what="pool", why="away")


def test_hub_chain_and_node_are_learned_from_the_pool(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PoolApi, "config", lambda _: POOL)
    own = settings_from_pool(settings)
    assert (own.hub, own.chain_id, own.rpc_url) == (POOL.hub, POOL.chain_id, POOL.rpc_url)


def test_while_the_pool_is_away_its_last_word_counts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pool_config(settings, WORKER_KEY.wallet, POOL)
    monkeypatch.setattr(PoolApi, "config", away)
    assert settings_from_pool(settings).hub == POOL.hub


@pytest.mark.parametrize("content", ["", "{}", '{"hub": 1}'])
def test_a_pool_that_is_away_and_never_answered_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    layout_of(settings.home, WORKER_KEY.wallet).pool.write_text(content)
    monkeypatch.setattr(PoolApi, "config", away)
    with pytest.raises(PoolUnavailable):
        settings_from_pool(settings)
    named = settings.model_copy(update={"hub": POOL.hub})
    assert settings_from_pool(named) is named


@pytest.mark.parametrize("url", ["pool.example", "pool.example:8080", "ftp://pool.example", "http://", "", "http:///x"])
def test_a_url_without_scheme_or_host_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(BadSetting, match=r"SLUICE_API_URL is wrong: it .*Write it like https://pool.example"):
        PoolApi(url)
