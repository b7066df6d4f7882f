"""Draws faults, each equally likely to be of any kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.faulty import answers
from tests.faulty.answers import Fault

#: JSON that is an answer to nothing.
ANY_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(["0x", "0x0", "0xzz", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["number", "hash", "x"]), inner),
    max_leaves=6,
)
METHODS = st.none() | st.frozensets(
    st.sampled_from(
        ["eth_call", "eth_getLogs", "eth_getBlockByNumber", "eth_blockNumber", "eth_chainId", "eth_getBlockReceipts"]
    ),
    min_size=1,
)
_WHOLE = st.one_of(
    st.sampled_from([400, 403, 404, 413, 429, 500, 502, 503, 504, 301]).map(answers.status),
    st.sampled_from(answers.ERRORS[:10]).map(lambda error: answers.one_error(*error)),
    st.sampled_from([b"", b"[]", b"{}", b"null", b"[null]", b"[" * 10_000, b"\xff\xfe", b"0x1"]).map(answers.raw),
    st.just(answers.cut),
)


def _errors(drawn: tuple[tuple[Any, Any], int]) -> Fault:
    (code, message), every = drawn
    return answers.errors(code, message, every)


def faults() -> st.SearchStrategy[Fault]:
    """Any fault; the honest node among them. None of them waits."""
    return st.one_of(
        st.just(answers.honest),
        st.builds(answers.results, st.none() | st.just("0x"), METHODS),
        st.builds(answers.results, ANY_JSON, METHODS),
        st.tuples(st.sampled_from(answers.ERRORS), st.integers(1, 3)).map(_errors),
        _WHOLE,
        st.floats(0, 0.99).map(answers.truncated),
        st.sampled_from([answers.shortened, answers.backwards]),
        st.sampled_from(
            [
                answers.ids(lambda asked: [one + 1 for one in asked]),
                answers.ids(lambda asked: asked[:1] * len(asked)),
                answers.ids(lambda asked: [None] * len(asked)),
                answers.ids(lambda asked: [str(one) for one in asked]),
            ]
        ),
        st.builds(answers.batches, st.sampled_from([0, 1, 2, 3, 20]), _WHOLE),
        st.integers(1, 20).map(answers.behind),
    )
