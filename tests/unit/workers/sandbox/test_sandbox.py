"""What a container is given."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import EngineTrouble
from protocol.results.environment import input_file_name
from protocol.results.params import DealParams, read_params
from protocol.types import Wallet
from protocol.wire import Dataset
from tests.unit.workers.assignments import assignment, task_id
from workers.sandbox.profile import Sandbox, sandbox_of
from workers.sandbox.spec import (
    NANOSECONDS,
    ContainerSpec,
    Limits,
    container_name,
    container_spec,
    environment,
    read_engine_resources,
)

ZERO = "0x" + "0" * 40


def spec(params: str = "{}", sandbox: Sandbox | None = None) -> ContainerSpec:
    return container_spec(
        assignment(1, params=params),
        read_params(params),
        worker_name="alpha",
        workerpool="0x" + "ee" * 20,
        inputs="/in",
        outputs="/out",
        limits=Limits(2**30, NANOSECONDS),
        sandbox=sandbox or sandbox_of(read_settings()),
    )


def test_an_app_without_dataset_gets_exactly_the_variables_of_a_standard_task() -> None:
    assert environment(assignment(1), DealParams()) == {
        "IEXEC_TASK_ID": task_id(1),
        "IEXEC_DEAL_ID": "0x" + "dd" * 32,
        "IEXEC_TASK_INDEX": "3",
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": "/iexec_out",
        "IEXEC_BOT_SIZE": "5",
        "IEXEC_BOT_FIRST_INDEX": "2",
        "IEXEC_BOT_TASK_INDEX": "3",
        "IEXEC_DATASET_ADDRESS": ZERO,
        "IEXEC_DATASET_FILENAME": ZERO,
        "IEXEC_INPUT_FILES_NUMBER": "0",
    }


def test_a_dataset_is_named_by_its_address_and_its_url_is_kept_from_the_app() -> None:
    dataset = Dataset(address="0x" + "ab" * 20, url="https://example.com/secret", checksum="0x" + "0" * 64)
    variables = environment(assignment(1, dataset=dataset), DealParams())
    assert variables["IEXEC_DATASET_ADDRESS"] == variables["IEXEC_DATASET_FILENAME"] == "0x" + "ab" * 20
    assert not any("example.com" in value for value in variables.values())


def test_input_files_are_named_by_the_hash_of_their_url() -> None:
    assert (
        input_file_name("https://example.com/file.txt")
        == "0x7a8c22e58ff916fc67ab2f0cca10a488ba7c1e600c8bc341b5a1c775cd6998ee"
    )


def test_input_files_are_numbered_from_one() -> None:
    variables = environment(assignment(1), DealParams(input_files=("https://a.example/1", "https://a.example/2")))
    assert variables["IEXEC_INPUT_FILES_NUMBER"] == "2"
    assert variables["IEXEC_INPUT_FILES_FOLDER"] == "/iexec_in"
    assert variables["IEXEC_INPUT_FILE_NAME_1"] == input_file_name("https://a.example/1")
    assert variables["IEXEC_INPUT_FILE_NAME_2"] == input_file_name("https://a.example/2")


def test_blank_arguments_leave_the_image_its_own_command() -> None:
    assert list(spec('{"iexec_args": "  "}').command) == []


def test_arguments_are_split_as_java_workers_split_them() -> None:
    assert list(spec('{"iexec_args": "run \'a b\' --x=\\"1 2\\""}').command) == ["run", "a b", "--x=1 2"]


def test_two_machines_on_one_engine_name_the_same_task_differently() -> None:
    name = spec().name
    assert name.startswith("alpha-19e7e376-0x")
    assert name.endswith(task_id(1))


def test_a_slot_gets_its_share_of_the_processors_and_never_less_than_half_a_one() -> None:
    assert Limits.of_slot(memory_per_slot=1, cpus=8, slots=2).nano_cpus == 4 * NANOSECONDS
    assert Limits.of_slot(memory_per_slot=1, cpus=1, slots=8).nano_cpus == NANOSECONDS // 2


@given(st.text(max_size=100))
def test_a_worker_of_any_name_makes_a_name_that_docker_takes(name: str) -> None:
    made = container_name(name, Wallet("0x" + "ab" * 20), task_id(1))
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", made)
    assert made.endswith(f"-abababab-{task_id(1)}")


def test_a_slot_gets_no_more_processors_than_the_engine_has() -> None:
    assert Limits.of_slot(memory_per_slot=1, cpus=1, slots=1).nano_cpus == NANOSECONDS
    assert Limits.of_slot(memory_per_slot=1, cpus=2, slots=64).nano_cpus == NANOSECONDS // 2


@pytest.mark.parametrize("info", [{}, {"NCPU": 0, "MemTotal": 1}, {"NCPU": None, "MemTotal": 1}, {"NCPU": "2"}])
def test_an_engine_that_does_not_say_what_it_has_is_asked_again(info: dict[str, object]) -> None:
    with pytest.raises(EngineTrouble):
        read_engine_resources(info)
