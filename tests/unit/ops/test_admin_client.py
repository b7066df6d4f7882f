"""Commands that ask the operator's API: what is typed stays the id that it is meant to be, what is watched is seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from rich.text import Text

from ops import cli
from ops.admin import client
from ops.admin.client import OperatorApi
from ops.commands.pool import enrol, status


@pytest.mark.parametrize("typed", ["../pool", "../" * 30 + "pool", "a?all=true", "0x12#x"])
def test_an_id_with_a_slash_is_no_other_route(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def get(_: OperatorApi, path: str, **__: Any) -> dict[str, str]:
        asked.append(path)
        return {"kind": "task", "id": "0x1"}

    monkeypatch.setattr(OperatorApi, "get", get)
    api = object.__new__(OperatorApi)
    asked += [f"/tasks/{api.whole_id('task', typed)}", api.explain(typed)["id"]]
    assert not any(set(path.removeprefix("/tasks/").removeprefix("/explain/")) & set("/?#") for path in asked)


def test_each_look_of_watch_is_printed_where_no_terminal_can_be_drawn_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Api:
        page = "http://127.0.0.1/page/"

        def get(self, _: str) -> dict[str, str]:
            return {"is": "first"}

        def follow(self, _: str) -> Iterator[dict[str, str]]:
            yield {"is": "second"}
            raise KeyboardInterrupt

    monkeypatch.setattr(OperatorApi, "open", Api)
    monkeypatch.setattr(status, "drawn", lambda found, _: Text(found["is"]))
    assert cli.run(["status", "--watch"]) == 0
    assert "second" in capsys.readouterr().out.split()


def test_a_new_policy_is_waited_for_while_it_cuts_machines_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a thousand machines is a request to RabbitMQ."""
    api, waited = object.__new__(OperatorApi), []
    api._url, api._headers = "http://127.0.0.1:1", {}

    def http_client(_: str, *, timeout: float, **__: Any) -> httpx.Client:
        waited.append(timeout)
        raise httpx.ConnectError("")

    monkeypatch.setattr(client, "http_client", http_client)
    monkeypatch.setattr(OperatorApi, "open", lambda: api)
    assert cli.run(["enrol", "policy", "--mode", "allow"]) == 1
    assert cli.run(["enrol", "policy", "--reset"]) == 1
    assert cli.run(["enrol", "revoke", "0x" + "11" * 20]) == 1
    assert waited == [enrol.CUT_OFF_SECONDS, enrol.CUT_OFF_SECONDS, client.ANSWER_SECONDS]
