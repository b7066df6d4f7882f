"""Flower signs in to RabbitMQ as a user of its own, also where ours has its password in a file."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import read_settings
from pipeline.broker import flower
from pipeline.broker.admin import BrokerAdmin


def test_flower_is_not_told_of_the_file_with_the_schedulers_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    monkeypatch.setenv("SLUICE_AMQP_PASSWORD_FILE", str(file))
    monkeypatch.setenv("SLUICE_AMQP_URL", "amqp://sluice@brokers")
    admin = SimpleNamespace(prepare=lambda: None, admit_flower=lambda: "its own", api_url="http://brokers:15672")
    entered: Any = SimpleNamespace(__enter__=lambda _: admin, __exit__=lambda *_: None)
    monkeypatch.setattr(BrokerAdmin, "from_settings", lambda _: type("Admin", (), vars(entered) | {})())
    monkeypatch.setattr(flower, "admit_monitor", lambda *_: None)
    monkeypatch.setattr(flower, "flower_sign_in", lambda _: None)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, _words, env: started.append(env))
    flower.run(read_settings())
    (environment,) = started
    for name in [name for name in os.environ if name.startswith("SLUICE_") and name not in environment]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLUICE_AMQP_URL", environment["SLUICE_AMQP_URL"])
    assert "its%20own@brokers" in read_settings().amqp_url.get_secret_value()
