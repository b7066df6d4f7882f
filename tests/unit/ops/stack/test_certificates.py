"""Certificates of the broker: made once, renewed in time, keys for their owner only."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from ops import cli
from ops.stack import certificates
from ops.stack.certificates import CertificateFiles, ensure
from protocol.errors import BadInput

HOSTS = ("localhost", "127.0.0.1", "::1")
NOW = datetime.now(UTC)


def _handshake(files: CertificateFiles, host: str, ca: Path) -> None:
    """A TLS handshake in memory. Raises ssl.SSLError."""
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files.certificate, files.key)
    server = serving.wrap_bio(outside, inside, server_side=True)
    client = ssl.create_default_context(cafile=str(ca)).wrap_bio(inside, outside, server_hostname=host)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_the_ca_trusts_each_host(tmp_path: Path, host: str) -> None:
    files = ensure(tmp_path, HOSTS)
    _handshake(files, host, files.ca)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(files, "elsewhere.example", files.ca)


def test_only_the_owner_reads_the_keys(tmp_path: Path) -> None:
    files = ensure(tmp_path / "tls", HOSTS)
    assert [stat.S_IMODE(key.stat().st_mode) for key in (files.key, files.ca_key)] == [0o600, 0o600]
    assert b"PRIVATE" not in files.ca.read_bytes() + files.certificate.read_bytes()


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    files = ensure(tmp_path, HOSTS)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    ensure(tmp_path, HOSTS)
    assert {file: file.read_bytes() for file in files.folder.iterdir()} == before


@pytest.mark.parametrize("why", ["it ends soon", "it has ended", "other hosts", "another key", "no key"])
def test_a_certificate_that_does_not_serve_is_made_anew_by_the_same_ca(tmp_path: Path, why: str) -> None:
    age = {"it ends soon": certificates.SERVER_LIFE - timedelta(days=29), "it has ended": timedelta(days=400)}
    files = ensure(tmp_path, HOSTS if why != "other hosts" else ["old.example"], now=NOW - age.get(why, timedelta()))
    before, ca = files.certificate.read_bytes(), files.ca.read_bytes()
    if why == "another key":
        files.key.write_bytes(files.ca_key.read_bytes())
    elif why == "no key":
        files.key.unlink()
    ensure(tmp_path, HOSTS, now=NOW)
    assert files.certificate.read_bytes() != before
    assert files.ca.read_bytes() == ca
    _handshake(files, "localhost", files.ca)


@pytest.mark.parametrize("why", ["it ends soon", "another key"])
def test_a_ca_that_does_not_serve_is_made_anew_with_the_certificate(tmp_path: Path, why: str) -> None:
    files = ensure(tmp_path, HOSTS, now=NOW - certificates.CA_LIFE if why == "it ends soon" else NOW)
    if why == "another key":
        files.ca_key.write_bytes(files.key.read_bytes())
    ensure(tmp_path, HOSTS, now=NOW)
    _handshake(files, "localhost", files.ca)


@pytest.mark.parametrize("spoilt", ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"])
def test_a_file_that_is_something_else_is_left_alone_and_named(tmp_path: Path, spoilt: str) -> None:
    ensure(tmp_path, HOSTS)
    (tmp_path / spoilt).write_text("mine")
    with pytest.raises(BadInput, match=r"No certificate can be made in"):
        ensure(tmp_path, HOSTS)
    assert (tmp_path / spoilt).read_text() == "mine"


def test_a_host_that_no_certificate_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No certificate"):
        ensure(tmp_path, ["pöol.example"])


def test_an_operator_makes_one_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = typer.main.get_command(cli._build_app([]))
    arguments = ["scheduler", "certificate", "pool.example", "192.0.2.7", "--folder", str(tmp_path)]
    command.main([*arguments, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    files = CertificateFiles(tmp_path)
    assert told == {
        "certificate": str(files.certificate),
        "key": str(files.key),
        "ca": str(files.ca),
        "ca_key": str(files.ca_key),
        "written": [str(path) for path in (files.ca, files.ca_key, files.certificate, files.key)],
        "done": True,
    }
    for host in ("pool.example", "192.0.2.7"):
        _handshake(files, host, files.ca)
    command.main(arguments, standalone_mode=False)
    assert f"For workers: {files.ca}" in capsys.readouterr().out
