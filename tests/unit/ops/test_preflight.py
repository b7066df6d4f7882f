"""How long `sluice scheduler run` asks servers that do not answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import httpx
import pytest
from pydantic import SecretStr

from config.settings import Settings, read_settings
from ops import preflight
from pipeline.domain.condition.facts import Facts, IpfsFacts, NoAnswer
from pipeline.probes import Probes
from protocol.errors import BadSetting, RpcUnavailable

AWAY = NoAnswer("it is away", "Start it.", may_recover=True)
REFUSED = NoAnswer("it refuses the password", "Correct it.")


@dataclass
class Answers:
    """Probes that find these facts, one after the other, the last again and again."""

    rounds: list[Facts]
    asked: int = field(default=0)

    def ask(self, *, running: bool) -> Facts:
        assert not running
        self.asked += 1
        return self.rounds[min(self.asked, len(self.rounds)) - 1]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PAUSE_SECONDS", 0.0)


def asked(wait: float, *rounds: Facts) -> tuple[Facts, int]:
    answers = Answers(list(rounds))
    return preflight.ask_until_answered(cast("Probes", answers), wait), answers.asked


@pytest.mark.parametrize("first", [Facts(0.0, database=AWAY), Facts(0.0, broker=AWAY), Facts(0.0, node=AWAY)])
def test_a_server_that_is_still_starting_is_asked_until_it_answers(first: Facts) -> None:
    found, rounds = asked(1000.0, first, first, Facts(0.0))
    assert found == Facts(0.0)
    assert rounds == 3


def test_a_server_that_stays_away_is_given_up_when_the_time_is_over() -> None:
    found, rounds = asked(0.0, Facts(0.0, broker=AWAY))
    assert found.broker == AWAY
    assert rounds == 1


def test_a_server_that_refuses_us_is_not_asked_again() -> None:
    found, rounds = asked(1000.0, Facts(0.0, broker=REFUSED, database=AWAY))
    assert found.broker == REFUSED
    assert rounds == 1


def test_a_server_that_the_scheduler_can_wait_for_while_it_runs_is_not_waited_for() -> None:
    found, rounds = asked(1000.0, Facts(0.0, ipfs=AWAY))
    assert not isinstance(found.ipfs, IpfsFacts)
    assert rounds == 1


NAME = "pool.example.eth"


def test_a_node_that_is_still_starting_is_asked_for_an_ens_name_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Settings] = []

    def third_time(settings: Settings) -> Settings:
        asked.append(settings)
        if len(asked) < 3:
            raise RpcUnavailable(what="node", why="away")
        return settings.model_copy(update={"hub": "0x" + "ab" * 20})

    monkeypatch.setattr(preflight, "with_addresses", third_time)
    assert preflight.resolve_names(read_settings(hub=NAME), wait=1000.0).hub == "0x" + "ab" * 20
    # It was asked in a child, which leaves no thread and no connection in the process that forks the services.
    assert asked == []


@pytest.mark.parametrize(
    "error", [BadSetting(name="SLUICE_HUB", why="unowned", fix="Correct it."), RpcUnavailable(what="node", why="away")]
)
def test_what_is_wrong_with_a_name_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_: Settings) -> Settings:
        raise error

    monkeypatch.setattr(preflight, "with_addresses", fail)
    with pytest.raises(type(error)) as raised:
        preflight.resolve_names(read_settings(hub=NAME), wait=0.0)
    assert str(raised.value) == str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {"amqp_url": "amqp://sluice:change-me@127.0.0.1:5672"},
        {"amqp_url": "amqp://sluice:change%2Dme@rabbitmq:5672"},
        {"amqp_url": "amqp://sluice:sluice@rabbitmq:5672"},
        {"amqp_url": "amqps://guest:guest@10.0.0.7"},
        {"amqp_url": "amqp://pool:pool@rabbitmq"},
        {"mongodb_uri": "mongodb://sluice:change-me@mongodb:27017/?replicaSet=rs0"},
        {"mongodb_uri": "mongodb://root:password@a.example:27017,b.example:27017/?replicaSet=rs0"},
    ],
)
def test_a_password_that_everybody_knows_is_refused_before_anything_starts(fields: dict[str, object]) -> None:
    """F17: who follows the compose file would have had a broker whose administrator's password is printed in it."""
    settings = read_settings(**fields)
    name = f"SLUICE_{next(iter(fields)).upper()}"
    with pytest.raises(BadSetting, match=rf"{name} is wrong: its password is one that everybody knows.*openssl rand"):
        preflight.require_own_passwords(settings)
    with pytest.raises(BadSetting, match="everybody knows"):
        preflight.check(settings.model_copy(update={"private_key": SecretStr("0x" + "11" * 32)}))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"amqp_url": "amqp://sluice:9f86d081884c7d65@rabbitmq:5672", "mongodb_uri": "mongodb://u:x%40y@h,i:27017/"},
        {"amqp_url": "amqp://sluice:sluice@localhost:18672"},
        {"mongodb_uri": "mongodb://mongodb:27017/?replicaSet=rs0"},
        {"mongodb_uri": "mongodb://[::1"},
    ],
)
def test_other_passwords_and_those_of_the_local_stack_are_taken(fields: dict[str, object]) -> None:
    preflight.require_own_passwords(read_settings(**fields))


@pytest.mark.parametrize(
    ("answer", "ok", "says"),
    [
        (httpx.Response(200, json="TDX"), True, "serves TDX"),
        (httpx.Response(200, json="RISC"), False, "(ValueError)"),
        (httpx.Response(200, text="<html>"), False, "(JSONDecodeError)"),
        (httpx.Response(503), False, "(HTTPStatusError)"),
        (httpx.Response(200, json="GRAMINE"), False, "serves GRAMINE, and is named for SCONE, TDX"),
    ],
    ids=["told", "unknown kind", "no JSON", "away", "another kind"],
)
def test_the_secret_service_is_asked_which_enclaves_it_serves(answer: httpx.Response, ok: bool, says: str) -> None:
    transport = httpx.MockTransport(lambda _: answer)
    named = "SCONE=https://sms.example,TDX=https://sms.example"
    (found,) = preflight.ask_secret_service(read_settings(enclave_sms_url=named), transport)
    assert (found.ok, found.fatal, found.says.endswith(says)) == (ok, False, True)
    assert preflight.ask_secret_service(read_settings()) == []
