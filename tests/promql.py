"""Reads PromQL as far as tests need it: which metrics an expression names, and which labels with which values."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = r'"(?:[^"\\]|\\.)*"'
_MATCHERS = re.compile(rf"\{{((?:[^{{}}\"]|{_STRING})*)\}}")
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
#: A name that no parenthesis follows is no function.
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?!\w|\s*\()")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
#: Aggregations, which a grouping may part from their parenthesis.
_AGGREGATIONS = frozenset({"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev", "group"})


@dataclass(frozen=True, slots=True)
class Named:
    """What an expression names."""

    metrics: frozenset[str]
    #: Labels in matchers and groupings.
    labels: frozenset[str]
    #: (label, value) of each matcher; alternatives of a regular expression each.
    values: frozenset[tuple[str, str]]


def read(expression: str) -> Named:
    """What `expression` names."""
    matchers = [found for part in _MATCHERS.findall(expression) for found in _MATCHER.findall(part)]
    bare = _MATCHERS.sub(" ", expression)
    grouped = [label.strip() for part in _GROUPING.findall(bare) for label in part.split(",") if label.strip()]
    # Ranges, strings and numbers such as 1e18 name nothing.
    bare = re.sub(rf"\[[^\]]*\]|{_STRING}|\b\d[\w.]*", " ", _GROUPING.sub(" ", bare))
    names = {name for name in _NAME.findall(bare) if name.lower() not in _WORDS | _AGGREGATIONS}
    values = {(label, value) for label, how, text in matchers for value in _alternatives(how, text[1:-1])}
    return Named(frozenset(names), frozenset({label for label, _, _ in matchers} | set(grouped)), frozenset(values))


def _alternatives(how: str, text: str) -> list[str]:
    return text.split("|") if "~" in how else [text]
