"""Costly answers are made seldom, however often they are asked for."""

from __future__ import annotations

from itertools import count

import pytest

from pipeline.api.limits.recent_answers import RecentAnswers


def test_an_answer_is_made_anew_only_when_it_is_old() -> None:
    now = [0.0]
    answers, numbers = RecentAnswers(2.0, lambda: now[0]), count()
    assert [answers.get("one", lambda: next(numbers)) for _ in range(3)] == [0, 0, 0]
    assert answers.get("another", lambda: next(numbers)) == 1
    now[0] = 2.0
    assert answers.get("one", lambda: next(numbers)) == 2


def test_a_failure_is_not_kept() -> None:
    answers = RecentAnswers(2.0)
    with pytest.raises(ZeroDivisionError):
        answers.get("one", lambda: 1 // 0)
    assert answers.get("one", lambda: "there") == "there"
