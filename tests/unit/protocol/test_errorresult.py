from __future__ import annotations

import hashlib

import pytest

from protocol.errorresult import (
    ERROR_FILE,
    MACHINE_FAILED,
    Failure,
    blames_task,
    error_computed,
    error_digest,
    error_text,
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
