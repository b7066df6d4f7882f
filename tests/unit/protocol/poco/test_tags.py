"""Tags: what they demand, and which machines fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.poco.tags import (
    GPU_BIT,
    TEE_BIT,
    Framework,
    fits,
    framework,
    make_tag,
    needs_enclave_signature,
)
from protocol.types import ZERO_HASH, Hash32
from tests.unit.protocol import vectors

TAGS = st.integers(0, 2**256 - 1).map(make_tag)


@pytest.mark.parametrize("case", vectors.cases("tags"))
def test_tags_name_the_enclave_iexec_worker_reads_in_them(case: dict[str, Any]) -> None:
    assert framework(case["tag"]) == case["framework"]
    assert (framework(case["tag"]) in (Framework.SCONE, Framework.GRAMINE)) is case["tee"]


def test_the_contract_wants_an_enclave_signature_for_bit_0_even_if_no_framework_is_named() -> None:
    assert needs_enclave_signature(make_tag(TEE_BIT))
    assert framework(make_tag(TEE_BIT)) is None
    assert not needs_enclave_signature(make_tag(GPU_BIT))
    assert not needs_enclave_signature(ZERO_HASH)


def test_other_bits_do_not_hide_the_framework() -> None:
    assert framework(make_tag(0x9, GPU_BIT)) is Framework.TDX


def test_a_machine_without_a_gpu_does_not_fit_a_task_that_wants_one() -> None:
    gpu = make_tag(GPU_BIT)
    assert fits(gpu, gpu)
    assert not fits(gpu, ZERO_HASH)
    assert fits(ZERO_HASH, gpu)


@given(TAGS, TAGS)
def test_a_machine_fits_exactly_the_tasks_that_demand_nothing_it_lacks(task: Hash32, machine: Hash32) -> None:
    demanded, offered = int(task, 16), int(machine, 16)
    assert fits(task, machine) is (demanded | offered == offered)
    assert fits(task, make_tag(demanded, offered))


def test_a_tag_of_another_size_is_refused() -> None:
    with pytest.raises(BadMessage):
        framework(Hash32("0x03"))
