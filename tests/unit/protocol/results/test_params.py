"""A deal's params, read as iExec's worker reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from protocol.results.params import DealParams, read_params
from tests.unit.protocol import vectors

CASES = vectors.cases("deal_params")


@pytest.mark.parametrize("case", [case for case in CASES if "error" not in case])
def test_deal_params_are_read_as_iexec_worker_reads_them(case: dict[str, Any]) -> None:
    assert read_params(case["in"]) == DealParams(
        args=case["args"],
        # A literal null is no list either: nothing to download.
        input_files=tuple(case["input_files"] or ()),
        result_encryption=case["encryption"],
        storage_provider=case["storage"],
        storage_proxy=case["proxy"],
        secrets=case["secrets"],
        bulk_cid=case["bulk_cid"],
    )


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case])
def test_params_on_which_iexec_worker_dies_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        read_params(case["in"])


@pytest.mark.parametrize(
    "text",
    [
        '{"iexec_args":["a"]}',
        '{"iexec_args":{"a":"b"}}',
        '{"IEXEC_ARGS":"a"}',
        '{"iexec_args":"a","iexec_args":[]}',
        # A bad value is bad although a good one follows.
        '{"iexec_args":[],"iexec_args":"a"}',
        '{"iexec_result_encryption":"yes"}',
        '{"iexec_result_encryption":1.0}',
        '{"iexec_secrets":[]}',
        '{"iexec_secrets":{"1":{}}}',
        '{"iexec_input_files":[["a"]]}',
        '{"iexec_args":NaN}',
        '{"iexec_args":"a"',
        "{'iexec_args':'a'}",
        '{"iexec_args":"a\nb"}',
        "   ",
        "nullable",
        '{"iexec_args":"a","more":[[[1]]]}',
    ],
)
def test_what_does_not_fit_becomes_the_argument_line_as_a_whole(text: str) -> None:
    assert read_params(text) == DealParams(args=text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"iexec_args":"a"} and more', DealParams(args="a")),
        ('{"iexec_args":"[[[{{{"} [[[[', DealParams(args="[[[{{{")),
        ('{"iexec_args":"\\"[[["}', DealParams(args='"[[[')),
        ('{"iexec_args":"a","iexec_args":"b"}', DealParams(args="b")),
        ('{"iexec_args":1.50}', DealParams(args="1.50")),
        ('{"iexec_args":1e400}', DealParams(args="1e400")),
        ('{"iexec_args":true}', DealParams(args="true")),
        ('{"iexec_result_encryption":1}', DealParams(result_encryption=True)),
        ('{"iexec_result_encryption":0}', DealParams(result_encryption=False)),
        ('{"iexec_result_encryption":"false"}', DealParams(result_encryption=False)),
        ('{"iexec_result_encryption":null}', DealParams()),
        ('{"iexec_input_files":[1,"b"]}', DealParams(input_files=("1", "b"))),
        ('{"iexec_secrets":{"1":2}}', DealParams(secrets={"1": "2"})),
        ('{"iexec_secrets":null,"bulk_cid":null}', DealParams()),
        ("\n\t {}", DealParams()),
    ],
)
def test_values_are_coerced_and_the_rest_ignored_as_jackson_does(text: str, expected: DealParams) -> None:
    assert read_params(text) == expected


@pytest.mark.parametrize(
    ("head", "repeated"),
    [
        ("", "["),
        ("", "{"),
        ("", '{"'),
        ('{"', '\\"'),
        ('{"iexec_args":', "["),
        ("", '{"a":'),
        ("", "9"),
        ("", '{"a":1,'),
    ],
)
def test_a_hostile_text_is_read_as_an_argument_line_and_not_died_of(head: str, repeated: str) -> None:
    text = head + repeated * 200_000
    assert read_params(text).args == text


@given(st.text().filter(lambda text: not text.strip(" \t\r\n").startswith("null")))
def test_any_text_can_be_read(text: str) -> None:
    assert isinstance(read_params(text), DealParams)


@given(st.text(), st.lists(st.text()))
def test_what_the_sdk_writes_comes_back(args: str, urls: list[str]) -> None:
    written = json.dumps({"iexec_args": args, "iexec_input_files": urls, "iexec_result_storage_provider": "ipfs"})
    assert read_params(written) == DealParams(args=args, input_files=tuple(urls), storage_provider="ipfs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"iexec_result_storage_proxy": "https://result.example"}', "iexec_result_storage_proxy"),
        ('{"iexec_result_storage_provider": "dropbox"}', "iexec_result_storage_provider"),
        ('{"iexec_result_encryption": true}', "enclave"),
    ],
)
def test_what_no_task_outside_of_an_enclave_gets_is_named_in_words(text: str, words: str) -> None:
    assert words in (read_params(text).unserved() or "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"iexec_result_encryption": true, "iexec_secrets": {"1": "mine"}}', ""),
        ('{"iexec_result_storage_proxy": "https://result.example"}', "iexec_result_storage_proxy"),
        ('{"iexec_result_storage_provider": "dropbox"}', "iexec_result_storage_provider"),
        ('{"bulk_cid": "Qm"}', ""),
    ],
)
def test_an_enclave_encrypts_results_and_the_rest_that_it_does_not_do_is_named_in_words(text: str, words: str) -> None:
    found = read_params(text).unserved(enclave=True)
    assert (found is None) == (words == "")
    assert words in (found or "")


@pytest.mark.parametrize("text", ["", "{}", "hello", '{"iexec_result_storage_proxy": " "}'])
def test_an_ordinary_deal_asks_for_nothing_that_is_not_served(text: str) -> None:
    assert read_params(text).unserved() is None


def test_the_provider_that_the_sdk_fills_in_is_served() -> None:
    assert read_params('{"iexec_result_storage_provider": "ipfs"}').unserved() is None
