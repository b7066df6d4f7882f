"""What a support bundle must not show is cut out of text, however it is written there."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from ops.support.secrets import Scrubber

SECRETS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="*"), min_size=6, max_size=30
).map(str.strip)
WRITTEN = (
    lambda secret: secret,
    lambda secret: quote(secret, safe=""),
    lambda secret: json.dumps({"value": secret}),
    lambda secret: f"Authorization: Basic {base64.b64encode(secret.encode()).decode()}",
    lambda secret: f"export X='{secret}'; and again {secret}{secret}",
)


@given(SECRETS.filter(lambda secret: len(secret) >= 6), st.sampled_from(WRITTEN), st.text("ab ", max_size=5))
def test_a_known_secret_is_found_however_it_is_written(secret: str, written: object, around: str) -> None:
    assert callable(written)
    text = f"{around}{written(secret)}{around}"
    cleaned = Scrubber.knowing([secret]).text(text)
    for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}:
        assert form not in cleaned


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("cannot reach https://node.example/v2/k3yk3yk3y: refused", "k3yk3yk3y"),
        ("https://node.example?apikey=k3yk3yk3y", "k3yk3yk3y"),
        ("amqp://me:p4ssw0rd@broker.example:5672/core", "p4ssw0rd"),
        ("amqp://me:p4ssw0rd@127.0.0.1:5672/core", "p4ssw0rd"),
        ("see mongodb://u:p4ss@a,b:27017/?replicaSet=rs0", "p4ss"),
        ("Authorization: Bearer abc.def-ghi_123", "abc.def-ghi_123"),
        ("token eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl.", "eyJzdWIiOi"),
    ],
)
def test_what_nobody_knows_here_is_found_by_its_form(text: str, hidden: str) -> None:
    assert hidden in text
    assert hidden not in Scrubber.knowing([]).text(text)


@pytest.mark.parametrize(
    "text",
    [
        "task 0xd59e53e5aa: contributed in block 12",
        "http://127.0.0.1:18301/page/?x=1 answers",
        "amqp://127.0.0.1:18672",
        "https://pool.example",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert Scrubber.knowing(["s3cret-of-somebody"]).text(text) == text


def test_every_file_and_setting_that_holds_a_secret_is_known(tmp_path: Path) -> None:
    planted = {
        "key": "0x" + "ab12" * 16,
        "password": "the-keystores-password",
        "admin.token": "an-operators-token-of-32-characters",
        "token.secret": json.dumps({"keys": [{"id": "1", "made_at": 0, "secret": "cd" * 32}]}),
        "keystore": json.dumps({"crypto": {"ciphertext": "ef" * 32, "mac": "12" * 32, "cipher": "aes-128-ctr"}}),
        "registries": json.dumps(
            {
                "auths": {
                    "docker.io": {"auth": "dXNlcjpwYXNzd29yZA=="},
                    "a.example": {"auth": base64.b64encode(b"robot:p4ss w:rd!").decode()},
                    "b.example": {"username": "robot-of-b", "password": "b'$ pass"},
                    "c.example": {"identitytoken": "of.c/odd+token", "auth": "no Base64: kept"},
                }
            }
        ),
    }
    for name, content in planted.items():
        (tmp_path / name).write_text(content)
    scrub = Scrubber.of(
        read_settings(
            home=tmp_path,
            key_file=tmp_path / "key",
            keystore=tmp_path / "keystore",
            keystore_password_file=tmp_path / "password",
            registry_credentials_file=tmp_path / "registries",
            rpc_url="https://a.example/v3/secret-of-a, https://b.example/?k=secret-of-b",
            invite="secret-of-an-invite",
            mongodb_uri="mongodb://u:s3cret%2Fpart@db.example/?replicaSet=rs0",
        ),
        {"MONGODB_PASSWORD": "secret-of-compose", "PATH": "/usr/bin", "PROXY": "http://u:secret-of-a-proxy@p.example"},
    )
    for secret in (
        "ab12" * 16,
        "the-keystores-password",
        "an-operators-token-of-32-characters",
        "cd" * 32,
        "ef" * 32,
        "12" * 32,
        "dXNlcjpwYXNzd29yZA==",
        "user:password",
        "robot:p4ss w:rd!",
        "p4ss w:rd!",
        "b'$ pass",
        "of.c/odd+token",
        "no Base64: kept",
        "secret-of-a",
        "secret-of-b",
        "secret-of-an-invite",
        "s3cret/part",
        "s3cret%2Fpart",
        "secret-of-compose",
        "secret-of-a-proxy",
    ):
        assert secret not in scrub.text(f"so {secret} it says"), secret
    assert scrub.text("PATH=/usr/bin aes-128-ctr docker.io") == "PATH=/usr/bin aes-128-ctr docker.io"


@pytest.mark.parametrize("secret", ["s3cret" * 1000, "s3cret\0of-two-parts", "x" * 300])
def test_a_variables_secret_that_can_be_no_files_name_is_known_like_any_other(tmp_path: Path, secret: str) -> None:
    scrub = Scrubber.of(read_settings(home=tmp_path), {"MONGODB_PASSWORD": secret, "TOKEN_FILE": str(tmp_path)})
    assert scrub.text(f"so {secret} in {tmp_path}") == f"so *** in {tmp_path}"
