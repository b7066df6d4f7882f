"""The signature over a whole assignment: any change of any field is noticed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.assignment import recover_assignment_signer, sign_assignment
from protocol.errors import Refused
from protocol.wire import Assignment, Dataset, Mode
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL, assignment

_HEX = st.sampled_from("0123456789abcdef")
_ID = st.text(_HEX, min_size=64, max_size=64).map("0x{}".format)
_ADDRESS = st.text(_HEX, min_size=40, max_size=40).map("0x{}".format)
_WHOLE = st.integers(0, 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_DATASET = st.builds(Dataset, address=_ADDRESS, url=_TEXT, checksum=_ID)
_SIGNATURE = st.text(_HEX, min_size=130, max_size=130).map("0x{}".format)
#: A strategy for each field that is signed.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "task_id": _ID,
    "deal_id": _ID,
    "index": _WHOLE,
    "mode": st.sampled_from(Mode),
    "trust": _WHOLE,
    "tag": _ID,
    "wallet": _ADDRESS,
    "app": _ADDRESS,
    "image": _TEXT,
    "image_checksum": _ID,
    "dataset": st.none() | _DATASET,
    "params": _TEXT,
    "callback": _ADDRESS,
    "bot_first": _WHOLE,
    "bot_size": _WHOLE,
    "category_seconds": _WHOLE,
    "contribution_deadline": _WHOLE,
    "final_deadline": _WHOLE,
    "authorization": _SIGNATURE,
    "enclave_challenge": _ADDRESS,
}
ASSIGNMENTS = st.fixed_dictionaries(FIELDS).map(Assignment.model_validate)


def test_every_field_of_an_assignment_is_signed() -> None:
    assert FIELDS.keys() | {"signature"} == Assignment.model_fields.keys()


@given(ASSIGNMENTS)
def test_the_signer_of_an_assignment_is_found_after_its_way_as_json(whole: Assignment) -> None:
    signed = sign_assignment(SCHEDULER_KEY, whole, CHAIN_ID, WORKERPOOL)
    arrived = Assignment.model_validate(json.loads(json.dumps(signed.model_dump(mode="json"))))
    assert recover_assignment_signer(arrived, CHAIN_ID, WORKERPOOL) == SCHEDULER_KEY.wallet


@given(ASSIGNMENTS, st.sampled_from(sorted(FIELDS)), st.data())
def test_an_assignment_with_any_field_changed_has_another_signer(
    whole: Assignment, name: str, data: st.DataObject
) -> None:
    signed = sign_assignment(SCHEDULER_KEY, whole, CHAIN_ID, WORKERPOOL)
    other = data.draw(FIELDS[name].filter(lambda value: value != getattr(signed, name)))
    changed = signed.model_copy(update={name: other})
    assert recover_assignment_signer(changed, CHAIN_ID, WORKERPOOL) != SCHEDULER_KEY.wallet


@pytest.mark.parametrize(("chain_id", "workerpool"), [(CHAIN_ID + 1, WORKERPOOL), (CHAIN_ID, "0x" + "cc" * 20)])
def test_a_signature_for_another_pool_or_chain_does_not_count(chain_id: int, workerpool: str) -> None:
    assert recover_assignment_signer(assignment(), chain_id, workerpool) != SCHEDULER_KEY.wallet


def test_an_assignment_of_an_older_scheduler_is_refused_in_words() -> None:
    with pytest.raises(Refused, match="older release"):
        recover_assignment_signer(assignment(signature=None), CHAIN_ID, WORKERPOOL)


def test_the_authorization_alone_does_not_sign_an_assignment() -> None:
    whole = assignment(signature=assignment().authorization)
    assert recover_assignment_signer(whole, CHAIN_ID, WORKERPOOL) not in (SCHEDULER_KEY.wallet, WORKER_KEY.wallet)
