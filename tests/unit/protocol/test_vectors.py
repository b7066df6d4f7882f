"""Every conformance case that iExec's own libraries computed is tested somewhere."""

from __future__ import annotations

from tests.unit.protocol import vectors


def test_every_kind_of_iexecs_cases_is_tested_somewhere() -> None:
    # A kind that is added to the file must get its test before it is added here.
    assert vectors.names() == {
        "result_digest",  # test_digest
        "callback_digest",  # test_digest
        "args",  # test_args
        "task_id",  # test_ids_and_seals
        "hash_and_seal",  # test_ids_and_seals
        "authorization",  # test_authorization
        "deal_params",  # test_params
        "tags",  # test_tags
    }


def test_none_of_iexecs_cases_is_lost() -> None:
    assert sum(len(vectors.cases(name)) for name in vectors.names()) == 367
