"""The password of who only looks: made once, for its owner's eyes, and never said."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import read_settings
from pipeline.broker import monitor
from pipeline.broker.flower import flower_launch
from pipeline.broker.users import monitor_user
from protocol.errors import BadSetting


def test_the_password_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    now = read_settings(home=tmp_path / "home")
    first = monitor.monitor_password(now)
    file = monitor.password_file(now)
    assert len(first) >= monitor.SHORTEST
    assert file.stat().st_mode & 0o777 == 0o600
    assert monitor.monitor_password(now) == first == file.read_text().strip()
    file.unlink()
    assert monitor.monitor_password(now) != first


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        ("long enough, but", 0o600, "comma"),
        ("short", 0o600, "fewer than"),
        ("a" * 20 + "\x7f", 0o600, "others than printable"),
        ("long-enough-to-be-used", 0o644, "others may read it"),
    ],
)
def test_a_password_that_protects_nothing_is_refused_and_not_repeated(
    content: str, mode: int, why: str, tmp_path: Path
) -> None:
    now = read_settings(home=tmp_path)
    file = monitor.password_file(now)
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(BadSetting, match=why) as refused:
        monitor.monitor_password(now)
    assert content not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "asks"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("10.0.0.7", True)]
)
def test_flower_asks_who_comes_unless_only_this_machine_reaches_it(host: str, asks: bool, tmp_path: Path) -> None:
    now = read_settings(home=tmp_path, flower_host=host, amqp_url="amqp://a:b@127.0.0.1:5672")
    sign_in = monitor.flower_sign_in(now)
    launch = flower_launch(now, "another", "http://127.0.0.1:15672", sign_in)
    assert (sign_in == f"monitor:{monitor.monitor_password(now)}") == asks
    assert launch.env.get("FLOWER_BASIC_AUTH") == sign_in
    if sign_in is not None:
        assert monitor.monitor_password(now) not in " ".join(launch.argv)
        assert monitor.monitor_password(now) not in repr(launch)


def test_a_broker_of_several_pools_has_a_user_for_each() -> None:
    assert [monitor_user(core) for core in ("core", "west")] == ["monitor", "monitor-west"]
