"""Certificates of the broker: made once, renewed in time, keys for their owner only."""

from __future__ import annotations

import json
import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from ops import cli
from ops.stack import certificates
from ops.stack.certificates import CertificateFiles, ensure, to_write
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


@pytest.mark.parametrize("why", ["it ends soon", "another key", "no key"])
def test_a_ca_that_cannot_sign_is_not_replaced(tmp_path: Path, why: str) -> None:
    files = ensure(tmp_path, HOSTS, now=NOW - (certificates.CA_LIFE if why == "it ends soon" else timedelta()))
    if why == "another key":
        files.ca_key.write_bytes(files.key.read_bytes())
    elif why == "no key":
        files.ca_key.unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    says = {
        "it ends soon": "ca.pem ends on",
        "another key": "is not the key of .*ca.pem: bring the one that is",
        "no key": r"ca.pem needs its key .*ca-key.pem for that, which is not there: bring it",
    }
    with pytest.raises(BadInput, match=says[why]):
        ensure(tmp_path, ["new.example"], now=NOW)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_would_be_written_is_told_before(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path / "tls")
    assert to_write(files.folder, HOSTS) == [files.ca, files.ca_key, files.certificate, files.key]
    assert list(tmp_path.iterdir()) == []
    ensure(files.folder, HOSTS)
    assert to_write(files.folder, HOSTS) == []
    assert to_write(files.folder, ["new.example"]) == [files.certificate, files.key]
    files.ca_key.unlink()
    with pytest.raises(BadInput, match="needs its key"):
        to_write(files.folder, ["new.example"])


def test_a_good_certificate_needs_no_key_of_its_ca_on_the_server(tmp_path: Path) -> None:
    files = ensure(tmp_path, HOSTS)
    files.ca_key.unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    ensure(tmp_path, HOSTS)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_certificate_whose_ca_is_not_here_gets_no_other_ca(tmp_path: Path) -> None:
    files = ensure(tmp_path, HOSTS)
    files.ca.unlink()
    files.ca_key.unlink()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(BadInput, match=r"cert.pem is there, and the CA that signed it is not"):
        ensure(tmp_path, HOSTS)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_certificate_of_a_public_ca_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "_CA_NAME", "Public CA")
        public = ensure(tmp_path / "public", HOSTS)
    files = ensure(tmp_path / "own", HOSTS)
    for theirs, own in ((public.certificate, files.certificate), (public.key, files.key)):
        own.write_bytes(theirs.read_bytes())
    with pytest.raises(BadInput, match=r"cert.pem is of another CA, CN=Public CA: move it away first"):
        ensure(tmp_path / "own", HOSTS)
    assert files.key.read_bytes() == public.key.read_bytes()


def test_a_ca_whose_certificate_is_lost_is_made_of_its_key_and_signs_for_who_trusts_the_lost_one(
    tmp_path: Path,
) -> None:
    files = ensure(tmp_path, HOSTS)
    given_out = tmp_path / "given-out.pem"
    files.ca.rename(given_out)
    ensure(tmp_path, ["new.example"])
    for ca in (given_out, files.ca):
        _handshake(files, "new.example", ca)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_a_renewal_by_root_leaves_the_files_to_the_containers(tmp_path: Path) -> None:
    files = ensure(tmp_path, HOSTS, now=NOW - timedelta(days=380))
    for path, group, mode in ((files.key, 0, 0o400), (files.certificate, 10001, 0o644)):
        os.chown(path, 999, group)
        path.chmod(mode)
    before = files.key.read_bytes()
    ensure(tmp_path, HOSTS, now=NOW)
    assert files.key.read_bytes() != before
    found = [(path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) for path in files_of(files)]
    assert found == [(999, 0, 0o400), (999, 10001, 0o644)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca-key.pem", "ca.pem", "cert.pem", "key.pem"]


def files_of(files: CertificateFiles) -> tuple[Path, Path]:
    """The server's files."""
    return files.key, files.certificate


@pytest.mark.parametrize("may_read", [True, False])
def test_files_of_the_containers_that_this_user_may_not_replace_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], may_read: bool
) -> None:
    files = ensure(tmp_path, HOSTS, now=NOW - timedelta(days=380))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    read, told = Path.read_bytes, Path.stat

    def refused(path: Path) -> bytes:
        if path == files.key and not may_read:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    def of_container(path: Path, **how: bool) -> os.stat_result:
        found = told(path, **how)
        return os.stat_result((*found[:4], 999, *found[5:10])) if path == files.key else found

    def may_not(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refused)
        patched.setattr(Path, "stat", of_container)
        patched.setattr(os, "fchown", may_not)
        code = cli.run(["scheduler", "certificate", *HOSTS, "--folder", str(tmp_path)])
    said = capsys.readouterr().err
    assert (code, said.count("\n"), "Give the command as root" in said) == (2, 1, True), said
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


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
    assert list(tmp_path.iterdir()) == []


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
