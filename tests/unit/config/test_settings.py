"""Settings from the environment: which values are refused, and what is shown of secrets."""

from __future__ import annotations

import pytest

from config.settings import Settings, read_settings
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


NUMBERS = {name: field.annotation for name, field in Settings.model_fields.items() if field.annotation in (int, float)}


@pytest.mark.parametrize("name", [name for name in NUMBERS if name.endswith("_port")])
@pytest.mark.parametrize("port", ["-1", "0", "65536", "70000"])
def test_no_port_is_one_that_no_socket_takes(name: str, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SLUICE_{name.upper()}", port)
    with pytest.raises(BadSetting, match=f"SLUICE_{name.upper()}"):
        read_settings()


@pytest.mark.parametrize("name", [name for name, kind in NUMBERS.items() if kind is float])
@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "-1", "1e300"])
def test_no_time_is_endless_or_no_number(name: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SLUICE_{name.upper()}", number)
    with pytest.raises(BadSetting, match=f"SLUICE_{name.upper()}"):
        read_settings()
