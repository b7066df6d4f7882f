"""docs/worker-protocol.md names what the code has, and all of it that a worker meets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from chain.contracts import calls
from config import topology
from config.http_server import connections, server
from config.settings import Settings
from pipeline.api import errors, pool, reports, workers
from pipeline.api.auth import challenges, tokens
from pipeline.api.limits import body_limit
from pipeline.api.results import parts, repack, result_zip, upload, upload_turns
from pipeline.broker import machine_rights, segments
from pipeline.domain.replicas import Timeouts
from protocol import signin, wire
from protocol.gas import GAS_PER_TASK
from protocol.poco import deadlines
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.results import computed, error_result, params, zip_rules
from protocol.results.error_result import EnclaveFailure, Failure
from protocol.types import Timestamp
from tests import worker_protocol
from tests.documents import ROOT
from tests.unit.workers.assignments import assignment
from tests.worker_protocol import PAGE, fields, published, table
from workers.care.reveals import REVEAL_CHECK_SECONDS
from workers.care.upkeep import PING_TASKS
from workers.data import download, inputs
from workers.sandbox import disk, spec
from workers.task.outcome import verdict

TEXT = PAGE.read_text()
DEFAULTS = {name: field.default for name, field in Settings.model_fields.items()}
MESSAGES = [
    model
    for model in vars(wire).values()
    if isinstance(model, type)
    and issubclass(model, BaseModel)
    and model.__module__ == wire.__name__
    and model is not wire.Wire
]


def column(heading: str, number: int = 0) -> list[str]:
    """One column of a table of the page."""
    return [row[number] for row in table(heading)]


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MESSAGES, ids=lambda model: str(model.__name__))
def test_every_field_of_every_message_is_on_the_page_with_its_type(model: type[BaseModel]) -> None:
    assert {row[0]: row[1] for row in table(model.__name__)} == fields(model)


@pytest.mark.parametrize("kinds", [wire.Step, wire.Mode])
def test_every_step_and_mode_is_on_the_page(kinds: type[StrEnum]) -> None:
    assert column(kinds.__name__) == [str(kind) for kind in kinds]


def routes() -> dict[str, APIRoute]:
    """The API's routes for workers, by method and path."""
    found: Iterable[Any] = [route for module in (pool, workers, reports, upload) for route in module.router.routes]
    return {
        f"{method} {route.path}": route
        for route in found
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


def test_the_endpoints_of_a_worker_are_those_of_the_api() -> None:
    assert column("Endpoints") == list(routes())
    assert set(re.findall(r"`((?:GET|HEAD|POST|PUT|DELETE) /[^`]*)`", TEXT)) == set(routes())


def test_an_endpoint_has_a_token_a_body_and_an_answer_as_the_page_says() -> None:
    names = {model.__name__ for model in MESSAGES}
    for endpoint, token, body, answer in table("Endpoints"):
        route: Any = routes()[endpoint]
        asks = [dependency.call.__name__ for dependency in route.dependant.dependencies]
        assert any(name.startswith("_signed_in") for name in asks) == (token == "yes"), endpoint
        assert [field.field_info.annotation.__name__ for field in route.dependant.body_params] == (
            [body] if body in names else []
        )
        assert {route.response_model.__name__ if route.response_model else None} & names == {answer} & names
        assert (route.status_code == 204) == answer.startswith("204"), endpoint


def test_every_status_of_an_error_is_on_the_page() -> None:
    ours = {status for _, status, _ in errors._ANSWERS}
    assert {int(row[0]) for row in table("Errors")} == ours | {408, 500}


def test_the_version_and_its_header_are_on_the_page() -> None:
    assert (wire.PROTOCOL_HEADER, str(wire.PROTOCOL)) == ("Sluice-Protocol", "2")
    assert "The version of this protocol is 2." in TEXT
    assert column("Headers")[0] == wire.PROTOCOL_HEADER


def test_the_sign_in_is_typed_as_the_page_says() -> None:
    members = ",".join(f"{member['type']} {member['name']}" for member in signin._TYPES["SignIn"])
    assert f"SignIn({members})" in TEXT
    assert f'name "{signin.DOMAIN_NAME}", version "{signin.DOMAIN_VERSION}"' in TEXT


def test_the_queue_of_each_message_is_on_the_page() -> None:
    names = (topology.COMPUTE, topology.UPLOAD, topology.REVEAL, topology.ABORT)
    queues = {name: "tx_queue" if name in topology.TX_TASKS else "compute_queue" for name in names}
    assert {row[0]: row[1] for row in table("Messages")} == queues
    assert set(re.findall(r"`(worker\.[a-z]+)`", TEXT)) == {*names}


def test_a_message_is_published_as_the_page_says() -> None:
    message = published("0x" + "11" * 32)
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.headers["task"] == topology.REVEAL
    assert "compression" not in message.headers
    assert message.body is not None
    expected = '[[ARGUMENT], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    assert expected in TEXT
    body = message.body if isinstance(message.body, str) else bytes(message.body).decode()
    assert body == expected.replace("ARGUMENT", f'"0x{"11" * 32}"')


# -- results -----------------------------------------------------------------------------------------------------------


def test_every_cause_is_on_the_page_and_no_other() -> None:
    of_enclaves = {str(failure) for failure in EnclaveFailure}
    known = {str(failure) for failure in Failure} | error_result.DECLINED | of_enclaves
    known |= {error_result.SESSION_UNKNOWN, error_result.NO_ENCLAVE_KEY, error_result.LOST_CHALLENGE}
    assert [(row[0], row[1]) for row in table("Failures")] == [(str(it), it.status) for it in Failure]
    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TEXT)) - _OTHER_WORDS == known


#: What looks like a cause on the page and is none: a registry's codes, PoCo's statuses, variables of containers.
_OF_SESSIONS = {"IEXEC_DATASET_KEY", "RESULT_ENCRYPTION", "SIGN_TEE_CHALLENGE_PRIVATE_KEY"}
_OTHER_WORDS = (
    {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"} | _OF_SESSIONS | {failure.status for failure in Failure}
) | spec.environment(assignment(), params.DealParams(input_files=("https://x.example",))).keys()


def test_no_worker_module_has_a_cause_of_its_own() -> None:
    known = error_result.DECLINED | {str(failure) for failure in Failure}
    for path in sorted((ROOT / "workers").rglob("*.py")):
        assert not [cause for cause in known if f'"{cause}"' in path.read_text()], path


def test_an_error_result_is_worded_as_the_page_says() -> None:
    pattern = next(line for line in TEXT.splitlines() if line.startswith("[IEXEC] Errors"))
    for failure in Failure:
        text = pattern.replace("STATUS", failure.status).replace("CAUSE", failure)
        assert error_result.error_text(failure).decode() == text


def test_the_exit_codes_that_blame_the_machine_are_on_the_page() -> None:
    codes = [verdict.KILLED, *sorted(verdict._FROM_OUTSIDE)]
    assert f"(exit codes {', '.join(map(str, codes))})" in TEXT


def test_the_keys_of_params_and_of_computed_json_are_on_the_page() -> None:
    assert set(column("Params")) == set(params._READERS)
    assert column("Result") == [computed._PATH_KEY, computed._CALLBACK_KEY]


def test_the_variables_of_an_app_are_on_the_page() -> None:
    variables = spec.environment(assignment(), params.DealParams(input_files=("https://x.example/1",)))
    assert set(column("Container")) == set(variables)


# -- the chain ---------------------------------------------------------------------------------------------------------


def test_functions_and_their_gas_are_on_the_page() -> None:
    for signature, gas, _ in table("Vote"):
        limit = calls.GAS_LIMITS[signature.partition("(")[0]]
        assert gas == f"{limit.base}" + (f" + {limit.per_byte} a byte of calldata" if limit.per_byte else "")
    assert column("Vote") == [it.signature for it in (calls.CONTRIBUTE, calls.REVEAL, calls.CONTRIBUTE_AND_FINALIZE)]


@pytest.mark.parametrize("view", [calls.VIEW_TASK, calls.VIEW_CONTRIBUTION, calls.VIEW_ACCOUNT])
def test_views_are_on_the_page(view: Any) -> None:
    (said,) = re.findall(rf"^\| `{re.escape(view.signature)}` \| `(\([^`]*\))`", TEXT, re.MULTILINE)
    assert (re.sub(r" \w+", "", said.replace(", ", ",")),) == view.outputs


@pytest.mark.parametrize("kind", [TaskStatus, ContributionStatus])
def test_statuses_are_on_the_page(kind: type[TaskStatus | ContributionStatus]) -> None:
    title = "a task" if kind is TaskStatus else "a contribution"
    rows = TEXT.partition(f"| status of {title} | number |\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert rows == [f"| {status.name} | {status.value} |" for status in kind]


# -- limits ------------------------------------------------------------------------------------------------------------


def _more(name: str) -> Callable[[Timeouts], float]:
    return lambda timeouts: float(getattr(timeouts, name))


def _longest(of: Callable[[Timeouts], float]) -> str:
    """A time-out that grows with the block time, as the page writes it."""
    return f"max({of(Timeouts(1e6)) / 1e6:g} blocks, {of(Timeouts(1e-6)):g} s)"


LIMITS: dict[str, list[object]] = {
    "Limits of the API": [
        challenges.CHALLENGE_SECONDS,
        tokens.TOKEN_SECONDS,
        tokens.LONGEST_HEADER,
        body_limit.SMALL_BYTES,
        body_limit.REPORT_BYTES,
        zip_rules.largest_zip(int(str(DEFAULTS["max_result_bytes"]))),
        connections.HEAD_SECONDS,
        body_limit.BODY_SECONDS,
        server.KEEP_ALIVE_SECONDS,
        upload_turns.LEAST_RATE,
        upload_turns.STALL_SECONDS,
        parts.KEPT_SECONDS,
        upload_turns.PER_WALLET,
        *(DEFAULTS[f"rate_{kind}"] for kind in ("requests", "sign_in", "sign_in_wallet", "ping", "upload")),
        DEFAULTS["api_connections"],
        DEFAULTS["api_connections_per_address"],
        DEFAULTS["worker_most_slots"],
        DEFAULTS["worker_lost_seconds"],
    ],
    "Limits of the broker": [
        machine_rights.MOST_CONNECTIONS,
        machine_rights.MOST_CHANNELS,
        machine_rights.QUEUE_MESSAGES,
        machine_rights.QUEUE_BYTES,
        segments.EXPIRES,
        topology.DELIVERY_LIMIT,
        int(re.findall(r"consumer_timeout = (\d+)", (ROOT / "docker/rabbitmq.conf").read_text())[0]),
        machine_rights.QUEUE_EXPIRES,
    ],
    "Limits of a task": [
        wire.MEMORY_PER_SLOT,
        wire.DOWNLOAD_BYTES,
        download.TOTAL_FILES,
        inputs.MAX_INPUT_FILES,
        wire.IMAGE_BYTES,
        spec.PIDS,
        spec.FILE_BYTES,
        disk.WORKING_FACTOR,
        DEFAULTS["max_result_bytes"],
        wire.SCRATCH_BYTES,
        result_zip.MAX_ENTRIES,
        computed.NAME_CHARACTERS,
        zip_rules.PATH_CHARACTERS,
        zip_rules.PATH_BYTES,
        computed.PATH_LEVELS,
        computed.COMPUTED_BYTES,
        computed.CALLBACK_BYTES,
        result_zip.MAX_UNPACKED_BYTES,
        result_zip.MAX_DIRECTORY_BYTES,
        repack.PRINTED_BYTES,
        wire.LOG_TAIL_CHARACTERS,
        error_result.CAUSE_CHARACTERS,
    ],
    "How long the pool waits": [
        _longest(_more("start_timeout")),
        f"2 × category_seconds + {Timeouts().compute_timeout(0):g} s",
        _longest(_more("contribute_timeout")),
        _longest(_more("upload_timeout")),
        _longest(_more("reask")),
        f"{deadlines.REVEAL_DEADLINE_RATIO} × category_seconds",
    ],
}


def test_every_rate_limit_that_a_worker_meets_is_among_them() -> None:
    rates = {name: DEFAULTS[name] for name in DEFAULTS if name.startswith("rate_") and name != "rate_logs"}
    assert [row for row in LIMITS["Limits of the API"] if "/" in str(row)] == [*rates.values()]


@pytest.mark.parametrize("heading", LIMITS)
def test_limits_are_on_the_page_with_their_values(heading: str) -> None:
    said = column(heading, 1)
    assert said == [f"{value:g}" if isinstance(value, float) else str(value) for value in LIMITS[heading]]


def test_limits_that_two_places_have_are_the_same() -> None:
    assert dict(fields_of_ping())["tasks"] == PING_TASKS


def fields_of_ping() -> list[tuple[str, int]]:
    """Most items of each list in a ping."""
    return [(name, int(kind.rpartition("most ")[2])) for name, kind in fields(wire.Ping).items() if "most" in kind]


def test_figures_in_the_text_are_those_of_the_code() -> None:
    start = Timestamp(0)
    assert Timeouts(1e-6).compute_timeout(1) - Timeouts(1e-6).compute_timeout(0) == 2
    for figure in (
        f"native token for {GAS_PER_TASK:,} gas",
        f"Send one every {DEFAULTS['ping_seconds']:g} seconds",
        f"after {Timeouts(1.0).reask:g} seconds (or 3 blocks) first",
        f"It is dropped after {segments.EXPIRES} seconds in the queue",
        f"{topology.DELIVERY_LIMIT} times at most",
        f"every {REVEAL_CHECK_SECONDS:g} seconds from then on",
        f"start of the deal + {deadlines.contribution_deadline(start, 1)} × `category_seconds`",
        f"start of the deal + {deadlines.final_deadline(start, 1)} × `category_seconds`",
        f"after its first {upload_turns.GRACE_SECONDS:g} seconds",
        f"the folder `{repack.UNPROVEN_FOLDER}`",
        *(f"`{name}`" for name in repack.PRINTED_FILES),
    ):
        assert figure in TEXT


# -- test vectors ------------------------------------------------------------------------------------------------------


def test_the_test_vectors_are_what_the_code_computes() -> None:
    wanted = worker_protocol.vectors()
    assert worker_protocol.page_vectors() == wanted + "\n", "run: python -m tests.worker_protocol"
    assert json.loads(wanted)["assignment"]["assignment"].keys() == wire.Assignment.model_fields.keys()
