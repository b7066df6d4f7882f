from __future__ import annotations

import pytest

from config.settings import read_settings
from protocol.errors import BadSetting


def test_a_wrong_setting_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_BLOCK_TIME", "soon")
    with pytest.raises(BadSetting, match="SLUICE_BLOCK_TIME"):
        read_settings()


def test_an_address_of_the_wrong_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HUB", "0x1234")
    with pytest.raises(BadSetting, match="SLUICE_HUB"):
        read_settings()


def test_secrets_do_not_show_in_the_settings_repr() -> None:
    shown = repr(read_settings(private_key="0x" + "ab" * 32, amqp_url="amqp://me:hush@host"))
    assert "abab" not in shown
    assert "hush" not in shown
