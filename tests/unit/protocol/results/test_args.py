"""An app's argument line, split as iExec's worker splits it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.results.args import split_args
from tests.unit.protocol import vectors


@pytest.mark.parametrize("case", vectors.cases("args"))
def test_arguments_are_split_as_iexec_worker_splits_them(case: dict[str, Any]) -> None:
    assert list(split_args(case["in"])) == case["out"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("""'a b' "c d\"""", ["a b", "c d"]),
        ('--x="1 2"', ["--x=1 2"]),
        ("a'b c'd", ["ab cd"]),
        ("''", []),
        ('"" x', ["x"]),
        ("a\\ b", ["a\\", "b"]),
        ('\\"q\\"', ['\\"q\\"']),
        ('{"k":"v"}', ["{k:v}"]),
        ("""--json '{"a":1}'""", ["--json", '{"a":1}']),
        # The escape survives the space, so the first quote is literal and the second opens.
        ("\\ 'x y'", []),
    ],
)
def test_arguments_are_split_as_in_the_documented_examples(text: str, expected: list[str]) -> None:
    assert list(split_args(text)) == expected


@given(st.lists(st.text(st.characters(exclude_characters=" '\"\\"), min_size=1)))
def test_words_without_quotes_or_backslashes_come_back_as_they_went_in(words: list[str]) -> None:
    assert list(split_args(" ".join(words))) == words


@given(st.lists(st.text(st.characters(exclude_characters="'\\"), min_size=1)))
def test_single_quotes_keep_everything_together(words: list[str]) -> None:
    assert list(split_args(" ".join(f"'{word}'" for word in words))) == words


@given(st.text(alphabet="ab '\"\\\t=-", max_size=30))
def test_any_text_splits_into_arguments_of_its_own_characters_none_empty(text: str) -> None:
    arguments = split_args(text)
    assert all(arguments)
    assert sum(map(len, arguments)) <= len(text)


@given(st.text(alphabet="ab =-\t", max_size=30))
def test_an_unclosed_quote_makes_all_arguments_vanish(text: str) -> None:
    assert split_args(f"{text}'") == ()
    assert split_args(f'{text}"') == ()
