"""Error results, their causes, and whom each cause counts against."""

from __future__ import annotations

import hashlib

import pytest

from protocol.results.error_result import (
    CAUSE_CHARACTERS,
    ERROR_FILE,
    MACHINE_FAILED,
    MACHINE_MEMORY,
    NO_ENCLAVE,
    NO_ENCLAVE_KEY,
    NO_SESSION,
    NOT_PREPARED,
    SESSION_UNKNOWN,
    UNCLEAR_END,
    EnclaveFailure,
    Failure,
    blames_task,
    cause_code,
    counts_against_machine,
    error_computed,
    error_digest,
    error_text,
    worded,
)


@pytest.mark.parametrize(
    ("failure", "status", "digest"),
    [
        (
            Failure.APP_IMAGE,
            "APP_DOWNLOAD_FAILED",
            "0x6b234cc858ad3404f912dd7f119afe2178251bec64cb25e5cbeba61dd764fc5d",
        ),
        (
            Failure.DATASET_FILE,
            "DATA_DOWNLOAD_FAILED",
            "0x8e3ac3704dc9fd9bdec06799b85a570e7f67f3ff8cd751b11af241dddbe4996e",
        ),
        (
            Failure.DATASET_CHECKSUM,
            "DATA_DOWNLOAD_FAILED",
            "0xc276b4a3cbe341163601818dfa3d7f5f8db8cc35f00c9c30666864e39c96b565",
        ),
        (
            Failure.INPUT_FILES,
            "DATA_DOWNLOAD_FAILED",
            "0x0667139fc3aade5e376044a41fbf2b37df1f191ee28f04debc01c1d5c64c0a54",
        ),
    ],
)
def test_error_results_reach_consensus_with_java_workers(failure: Failure, status: str, digest: str) -> None:
    assert failure.status == status
    assert error_digest(failure) == digest
    assert "0x" + hashlib.sha256(error_text(failure)).hexdigest() == digest


def test_computed_json_points_at_the_error_text() -> None:
    assert error_computed() == {"deterministic-output-path": f"/iexec_out/{ERROR_FILE}"}


def test_only_failures_that_every_machine_would_have_blame_the_task() -> None:
    assert all(blames_task(failure.value) for failure in Failure)
    assert not any(blames_task(cause) for cause in (MACHINE_FAILED, "the task is REVEALING", "", None))


def test_a_session_that_the_secret_service_does_not_give_is_held_against_no_machine() -> None:
    """All ask the same service; only where a secret is missing would every machine meet the same, whatever it does."""
    for cause in (SESSION_UNKNOWN, f"{NO_SESSION}INVALID_AUTHORIZATION", NO_ENCLAVE_KEY):
        assert not blames_task(worded(cause, "the secret service says so"))
        assert not counts_against_machine(worded(cause, "the secret service says so"))
    assert all(blames_task(failure.value) and not counts_against_machine(failure.value) for failure in EnclaveFailure)
    assert not counts_against_machine(worded(NOT_PREPARED, "no image can have this name"))
    assert counts_against_machine(NO_ENCLAVE)


def test_a_cause_with_words_counts_as_its_code() -> None:
    assert blames_task(worded(Failure.COMPUTED_FILE, "computed.json has no callback-data"))
    assert not blames_task(worded(MACHINE_FAILED, f"{Failure.APP}: said somebody"))
    assert cause_code(worded(MACHINE_FAILED, "HTTP 503: busy")) == MACHINE_FAILED
    assert worded(MACHINE_FAILED, "") == MACHINE_FAILED
    assert len(worded(MACHINE_FAILED, "x" * 500)) == CAUSE_CHARACTERS
    assert "\n" not in worded(MACHINE_FAILED, "two\nlines")
    assert worded(MACHINE_FAILED, "\x1b[2J\tgone\x00") == f"{MACHINE_FAILED}: ?[2J gone?"


def test_too_little_memory_is_neither_held_against_the_app_nor_against_the_machine() -> None:
    small = worded(MACHINE_MEMORY, "the app needed more than the 1073741824 bytes this machine offers")
    assert not blames_task(small)
    assert not counts_against_machine(small)
    assert counts_against_machine(worded(MACHINE_FAILED, "the disk is full"))


def test_an_end_that_an_app_can_bring_about_is_held_against_nobody() -> None:
    killed = worded(UNCLEAR_END, "the app was killed")
    assert not blames_task(killed)
    assert not counts_against_machine(killed)


def test_a_failure_without_a_cause_counts_against_the_machine() -> None:
    assert counts_against_machine(None)
