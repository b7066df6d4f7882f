"""Who may read and change what at the operator's port, on real servers."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from config.operator_token import token_file
from config.settings import settings
from config.whole_files import write_whole
from ops import cli
from ops.admin.client import OperatorApi
from pipeline.api.admin.access import operator_token
from pipeline.api.application import create_operations_app
from protocol.errors import BadSetting, OperatorRefused
from tests.integration.api.conftest import TASK, WORKER, Api


def routes(api: Api) -> list[tuple[str, str]]:
    document = api.operations.get("/openapi.json").json()
    return [
        (method.upper(), re.sub(r"{wallet}", WORKER.wallet, re.sub(r"{(anything|task_id|deal_id)}", TASK, path)))
        for path, methods in document["paths"].items()
        if path.startswith("/admin/")
        for method in methods
    ]


def test_nothing_is_changed_without_the_operators_token(api: Api) -> None:
    found = [(method, path) for method, path in routes(api) if method != "GET"]
    assert len(found) >= 9
    signed_in = api.bearer(WORKER)["authorization"]
    for method, path in found:
        for given in (None, "Bearer", "Bearer x", signed_in, f"Basic {operator_token(api.settings)}"):
            headers = {} if given is None else {"authorization": given}
            answer = api.operations.request(method, path, headers=headers, params={"most": 1})
            assert answer.status_code == 401, (method, path, given)
            assert set(answer.json()) == {"error", "fix"}
    assert api.http.get("/admin/status").status_code == 404, "the public port has none of them"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:18301"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
        {"authorization": ""},
        {"authorization": "Bearer x"},
    ],
)
def test_only_a_request_from_this_machine_to_this_machine_reads_without_the_token(
    api: Api, headers: dict[str, str]
) -> None:
    found = [path for method, path in routes(api) if method == "GET" and not path.endswith("/live")]
    assert len(found) >= 9
    for path in found:
        assert api.operations.get(path).status_code != 401
        assert api.operations.get(path, headers=headers).status_code == 401, path
    assert api.operations.get("/admin/live", headers=headers).status_code == 401


def test_the_token_is_a_file_that_only_its_owner_reads(api: Api) -> None:
    path = token_file(api.settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == operator_token(api.settings)
    path.chmod(0o644)
    try:
        with pytest.raises(BadSetting, match="can be read by others"):
            operator_token(api.settings)
    finally:
        path.chmod(0o600)
    assert operator_token(api.settings) not in repr(api.settings)


def test_commands_that_go_on_are_told_of_changes_and_do_not_ask_again_and_again(
    api: Api, sluice: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OperatorApi.open()
    told = client.follow("/live")
    assert [next(told)["workerpool"] for _ in range(2)] == [api.services.pool.workerpool] * 2
    asked, get = [], OperatorApi.get

    def note(client: OperatorApi, path: str, **options: Any) -> Any:
        asked.append(path)
        return get(client, path, **options)

    monkeypatch.setattr(OperatorApi, "get", note)
    assert sluice("pool", "drain", "--json")[0] == 0
    assert asked == ["/status"], "once in the end: what it is told may be some seconds old"
    monkeypatch.undo()
    api.services.store.pause.resume()
    monkeypatch.setenv("SLUICE_ADMIN_URL", f"http://127.0.0.1:{api.settings.operations_port}/")
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", "x" * 30)
    settings.cache_clear()
    with pytest.raises(OperatorRefused, match="not the operator's token"):
        next(OperatorApi.open().follow("/live"))


def test_a_rotated_operators_token_holds_at_once_and_the_former_is_refused(
    api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = token_file(api.settings)
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN_FILE", str(path))
    former = path.read_text()
    settings.cache_clear()
    assert cli.run(["keys", "rotate", "admin", "--dry-run"]) == 0
    assert "The operator's token, at once" in capsys.readouterr().out
    assert admin.get("/queues").status_code == 200
    settings.cache_clear()
    try:
        assert cli.run(["keys", "rotate", "admin"]) == 0
        assert operator_token(api.settings) not in capsys.readouterr().out
        assert admin.get("/queues").status_code == 401
        newer = {"authorization": f"Bearer {operator_token(api.settings)}"}
        assert admin.get("/queues", headers=newer).status_code == 200
        # What cannot be used does not lock the operator out.
        path.write_text("short")
        assert admin.get("/queues", headers=newer).status_code == 200
    finally:
        write_whole(path, former, mode=0o600)
        settings.cache_clear()
    assert admin.get("/queues").status_code == 200


def test_reading_needs_the_token_here_too_if_the_operator_says_so(api: Api) -> None:
    strict = replace(api.services, settings=api.settings.model_copy(update={"admin_sign_in": "always"}))
    transport = httpx.ASGITransport(app=create_operations_app(strict), client=("127.0.0.1", 1))
    token = {"authorization": f"Bearer {operator_token(api.settings)}"}

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.get("/admin/tasks", headers=headers)).status_code for headers in ({}, token)]

    assert asyncio.run(statuses()) == [401, 200]
