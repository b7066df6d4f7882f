"""Passwords from files are put into the addresses that name their users."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import read_settings
from protocol.errors import BadSetting


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("s3c/r:t@\n")
    return path


def test_each_address_gets_the_password_of_its_user(file: Path) -> None:
    found = read_settings(
        mongodb_uri="mongodb://sluice@a:27017,b:27017/?replicaSet=rs0",
        mongodb_password_file=file,
        amqp_url="amqp://sluice@a:5672;amqp://sluice@b:5672",
        amqp_password_file=file,
    )
    assert found.mongodb_uri.get_secret_value() == "mongodb://sluice:s3c%2Fr%3At%40@a:27017,b:27017/?replicaSet=rs0"
    written = "amqp://sluice:s3c%2Fr%3At%40@"
    assert found.amqp_url.get_secret_value() == f"{written}a:5672;{written}b:5672"
    assert "s3c" not in repr(found)


def test_settings_that_are_read_anew_from_what_was_read_are_the_same(file: Path) -> None:
    found = read_settings(amqp_url="amqp://sluice@a", amqp_password_file=file)
    again = read_settings(**{name: getattr(found, name) for name in found.model_fields_set})
    assert again.amqp_url == found.amqp_url


@pytest.mark.parametrize(
    "given", [{}, {"amqp_url": "amqp://sluice@a;amqp://sluice:0th3r@b"}], ids=["the address of the local stack", "one"]
)
def test_a_file_beside_an_address_with_another_password_is_refused_and_neither_is_shown(
    given: dict[str, str], file: Path
) -> None:
    with pytest.raises(BadSetting, match="SLUICE_AMQP_URL has another password as well") as refused:
        read_settings(**given, amqp_password_file=file)
    assert "Name the user alone in SLUICE_AMQP_URL" in str(refused.value)
    assert not [secret for secret in ("0th3r", "sluice:sluice", "s3c") if secret in str(refused.value)]


@pytest.mark.parametrize(
    ("content", "uri", "why"),
    [
        (None, "mongodb://sluice@a", "cannot be read"),
        ("\n", "mongodb://sluice@a", "is empty"),
        ("secret", "mongodb://a", "no user whose password"),
    ],
    ids=["absent", "empty", "no user"],
)
def test_what_cannot_be_is_one_sentence_that_names_the_setting(
    content: str | None, uri: str, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadSetting, match=f"SLUICE_MONGODB_PASSWORD_FILE is wrong: .*{why}"):
        read_settings(mongodb_uri=uri, mongodb_password_file=path)
