"""Counts with their noun, for people. Pure."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """How many of a thing, whose plural ends in s: 1 task, 2 tasks."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
