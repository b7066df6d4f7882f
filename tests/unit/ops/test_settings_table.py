"""docs/settings.md is what the settings class says, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import read_settings
from ops.settings_table import env_lines, markdown, shown


def test_the_settings_page_is_what_the_settings_class_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text() == markdown(), "run: sluice settings --markdown > docs/settings.md"


def test_no_secret_default_is_printed() -> None:
    assert "sluice:sluice" not in markdown()


@pytest.mark.parametrize(
    ("name", "value", "people_see"),
    [
        (
            "rabbitmq_api",
            "http://a:15672;http://b:15672; http://c:15672",
            "http://a:15672;http://b:15672; http://c:15672",
        ),
        ("rabbitmq_api", "http://me:s3cret@a:15672;http://b/s3cret", "http://***@a:15672;http://b/***"),
        (
            "enclave_sms_url",
            "TDX=https://tdx.example,SCONE=https://s.example",
            "TDX=https://tdx.example,SCONE=https://s.example",
        ),
        ("enclave_sms_url", "TDX=https://tdx.example/s3cret", "TDX=https://tdx.example/***"),
        (
            "rpc_url",
            "https://a.example/v2/s3,cret;s3cret, https://b.example",
            "https://a.example/***, https://b.example",
        ),
        ("rpc_url", "https://a.example?key=s3cret;x=//s3cret", "https://a.example?***"),
        ("docker_host", "unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
    ],
)
def test_each_address_of_several_is_shown_without_its_keys(name: str, value: str, people_see: str) -> None:
    now = read_settings(**{name: value})
    assert shown(now)[f"SLUICE_{name.upper()}"] == people_see
    # A backup without `--secrets` has what hides nothing, and only names the rest.
    (line,) = env_lines(now, secrets=False)
    assert line.startswith(f"SLUICE_{name.upper()}=") == (value == people_see)
