"""What a worker makes of whatever answers at SLUICE_API_URL."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import httpx
import pytest

from config.processes.per_process import PerProcess
from config.settings import read_settings
from protocol.errors import BadInput, BadSetting, NotSignedIn, PoolUnavailable, Refused
from protocol.types import TaskId
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.pool.api import RESUMED_BYTES, PoolApi


class Endless(httpx.SyncByteStream):
    """A body that does not end."""

    def __iter__(self) -> Iterator[bytes]:
        return repeat(b" " * 4096)


DATE = "Sat, 28 Nov 2026 17:00:00 GMT"


def streamed(response: httpx.Response) -> httpx.Response:
    """The same answer as it comes from a network, not read yet."""
    return httpx.Response(response.status_code, headers=response.headers, content=iter([response.content]))


def api(monkeypatch: pytest.MonkeyPatch, response: httpx.Response) -> PoolApi:
    made = PoolApi("https://pool.example/below")
    whole = response if isinstance(response.stream, Endless) else streamed(response)
    client = httpx.Client(transport=httpx.MockTransport(lambda _: whole))
    monkeypatch.setattr(made, "_http", PerProcess(lambda: client))
    return made


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(404, html="<h1>nginx</h1>"), "No such /below/config"),
        (httpx.Response(200, html="<h1>hello</h1>"), "is not a PoolConfig"),
        (httpx.Response(200, json={"name": "another API"}), "is not a PoolConfig"),
        (httpx.Response(200, content=b"\xff\xfe"), "is not a PoolConfig"),
        (httpx.Response(301, headers={"location": "https://elsewhere.example"}), "sends us on to https://elsewhere"),
        (httpx.Response(403, text="who are you"), "who are you"),
        (httpx.Response(400, text="plain HTTP sent to an HTTPS port"), "HTTPS port"),
        (httpx.Response(405), "HTTP 405"),
    ],
)
def test_something_else_than_a_pool_is_named_as_that(
    monkeypatch: pytest.MonkeyPatch, response: httpx.Response, words: str
) -> None:
    with pytest.raises(BadSetting) as caught:
        api(monkeypatch, response).config()
    said = str(caught.value)
    assert said.startswith(
        "Setting SLUICE_API_URL is wrong: what answers at https://pool.example/below is no Sluice pool"
    )
    assert words in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("response", "final"),
    [
        (httpx.Response(400, json={"error": "The message is not valid: it is not a zip."}), True),
        (httpx.Response(413, json={"error": "The body is larger than 5 bytes."}), True),
        (httpx.Response(413, html="<h1>nginx</h1>"), False),
        (httpx.Response(400, text="plain HTTP sent to an HTTPS port"), False),
        (httpx.Response(405, json={"error": "This API has no PUT /."}), False),
        (httpx.Response(301, headers={"location": "https://elsewhere.example"}), False),
    ],
)
def test_only_the_pools_own_word_on_a_result_is_final(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, response: httpx.Response, *, final: bool
) -> None:
    archive = tmp_path / "result.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(BadInput) as caught:
        api(monkeypatch, response).put_result("token", TaskId("0x" + "11" * 32), archive)
    assert bool(caught.value.fields.get("final")) is final


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_pool_behind_a_proxy_that_does_not_reach_it_is_away_and_not_wrong(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with pytest.raises(PoolUnavailable, match=f"HTTP {status}"):
        api(monkeypatch, httpx.Response(status)).config()


def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PoolUnavailable, match="did not end within"):
        api(monkeypatch, httpx.Response(200, stream=Endless())).config()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(403, json={"error": "\x1b]52;c;cm0=\x07 no\r\n"}),
        httpx.Response(403, text="\x1b[2J no"),
        httpx.Response(403, content=b'{"error":' + b"[" * 100_000),
        httpx.Response(301, headers=[(b"location", b"https://x/\x9b2J")]),
    ],
)
def test_no_word_of_a_pool_drives_the_terminal(monkeypatch: pytest.MonkeyPatch, response: httpx.Response) -> None:
    with pytest.raises(BadInput) as caught:
        api(monkeypatch, response).worker(POOL.scheduler)  # type: ignore[arg-type] # a wallet
    assert str(caught.value).isprintable()
    said = POOL.model_dump() | {"version": "1\x1b]0;x\x07", "ipfs_gateway": "http://x\x9b"}
    found = api(monkeypatch, httpx.Response(200, json=said)).config()
    assert all(text.isprintable() for text in (found.version, found.ipfs_gateway))


@pytest.mark.parametrize("host", ["", "a/b", "127.0.0.1/;amqp://elsewhere", "user@a", "a\x1b2J", "[::1]"])
def test_a_brokers_host_is_a_name_and_no_further_address_or_escape_sequence(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    one = {"host": "a.example", "port": 5671}
    for said in ({"amqp_host": host}, {"amqp_others": [{**one, "host": host}]}):
        with pytest.raises(BadSetting, match="no Sluice pool"):
            api(monkeypatch, httpx.Response(200, json=POOL.model_dump() | said)).config()


def test_an_answer_is_never_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(POOL.model_dump_json().encode())
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(packed))
    made = api(monkeypatch, httpx.Response(200))
    client = httpx.Client(transport=httpx.MockTransport(lambda _: response))
    monkeypatch.setattr(made, "_http", PerProcess(lambda: client))
    with pytest.raises(BadSetting, match="is not a PoolConfig"):
        made.config()


def test_a_pool_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api(monkeypatch, httpx.Response(200, json=POOL.model_dump())).config() == POOL


def test_keys_that_a_pool_of_a_later_release_adds_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api(monkeypatch, httpx.Response(200, json={**POOL.model_dump(), "later": {"a": 1}})).config() == POOL


@pytest.mark.parametrize(("status", "kind"), [(401, NotSignedIn), (403, Refused)])
def test_the_pools_own_sentence_is_repeated_and_not_its_json(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]
) -> None:
    error = kind(why="another machine is at work")  # type: ignore[call-arg] # errors of ours take fields
    body = {"error": str(error), "fix": "Nothing to retry."}
    with pytest.raises(kind) as caught:
        api(monkeypatch, httpx.Response(status, json=body)).worker(POOL.scheduler)  # type: ignore[arg-type]
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(("date", "told"), [(DATE, 1795885200.0), (None, None), ("yesterday", None)])
def test_the_pools_clock_is_read_if_it_says_so(
    monkeypatch: pytest.MonkeyPatch, date: str | None, told: float | None
) -> None:
    headers = {} if date is None else {"date": date}
    assert api(monkeypatch, httpx.Response(200, json={}, headers=headers)).time() == told


@pytest.mark.parametrize(
    "host", ["pool.example", "10.0.0.7:18300", "[2001:db8::1]", "localhost.example", "127.0.0.1.example"]
)
def test_an_api_elsewhere_without_encryption_is_refused_unless_its_network_is_trusted(host: str) -> None:
    """A token, and through RabbitMQ's password the machine's work, would be open to the networks in between."""
    with pytest.raises(BadSetting, match=r"SLUICE_ALLOW_PLAINTEXT.*http://.*not encrypted.*an address with TLS"):
        PoolApi.of(read_settings(api_url=f"http://{host}"))
    assert PoolApi.of(read_settings(api_url=f"https://{host}")).url == f"https://{host}"
    assert PoolApi.of(read_settings(api_url=f"http://{host}", allow_plaintext=True)).url == f"http://{host}"


@pytest.mark.parametrize("host", ["127.0.0.1:18300", "localhost", "[::1]:1", "127.8.9.1"])
def test_an_api_of_this_machine_needs_no_encryption(host: str) -> None:
    assert PoolApi.of(read_settings(api_url=f"http://{host}")).url == f"http://{host}"


STORED = {"link": {"storage": "ipfs", "location": "/ipfs/Qm"}, "digest": "0x" + "11" * 32}


def sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int, head: httpx.Response
) -> list[tuple[str, str | None, bytes]]:
    """Requests that an upload makes at a pool that answers HEAD with `head`: method, Content-Range, body."""
    seen = []

    def pool(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.headers.get("content-range"), request.read()))
        return streamed(head if request.method == "HEAD" else httpx.Response(200, json=STORED))

    made = PoolApi("https://pool.example")
    client = httpx.Client(transport=httpx.MockTransport(pool))
    monkeypatch.setattr(made, "_http", PerProcess(lambda: client))
    archive = tmp_path / "result.zip"
    archive.write_bytes(bytes(size - 1) + b"x")
    made.put_result("t", TaskId("0x" + "22" * 32), archive)
    return seen


@pytest.mark.parametrize(
    ("held", "first"), [(0, 0), (1000, 1000), (RESUMED_BYTES, RESUMED_BYTES - 1), (2**40, RESUMED_BYTES - 1)]
)
def test_an_upload_goes_on_where_the_pool_says_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: int, first: int
) -> None:
    head, put = sent(monkeypatch, tmp_path, RESUMED_BYTES, httpx.Response(204, headers={"upload-offset": str(held)}))
    assert head == ("HEAD", None, b"")
    assert put[:2] == ("PUT", f"bytes {first}-{RESUMED_BYTES - 1}/{RESUMED_BYTES}")
    assert len(put[2]) == RESUMED_BYTES - first


@pytest.mark.parametrize("head", [httpx.Response(405), httpx.Response(404), httpx.Response(403), httpx.Response(204)])
def test_a_pool_that_cannot_say_how_much_it_has_gets_the_whole_zip(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: httpx.Response
) -> None:
    _, put = sent(monkeypatch, tmp_path, RESUMED_BYTES, head)
    assert (put[0], put[1], len(put[2])) == ("PUT", None, RESUMED_BYTES)


def test_a_small_result_is_sent_without_asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [method for method, *_ in sent(monkeypatch, tmp_path, 10, httpx.Response(500))] == ["PUT"]
