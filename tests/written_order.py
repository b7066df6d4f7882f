"""What reaches the disk in which order: a loss of power keeps no name whose bytes were not asked for before it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A list that fills with each `sync`, `move` and `link` from now on, and the name of the file or folder."""
    acts: list[tuple[str, str]] = []
    sync, replace, link = os.fsync, os.replace, os.link

    def noted(act: str, do: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            done = do(*args, **options)
            acts.append((act, name(*args)))
            return done

        return call

    def opened(handle: int) -> str:
        return Path(f"/proc/self/fd/{handle}").readlink().name

    monkeypatch.setattr(os, "fsync", noted("sync", sync, opened))
    monkeypatch.setattr(os, "replace", noted("move", replace, lambda _, target: Path(target).name))
    monkeypatch.setattr(os, "link", noted("link", link, lambda _, target: Path(target).name))
    return acts


def is_durable(acts: list[tuple[str, str]], written: str, name: str, folder: str) -> bool:
    """Whether the file `written` was on disk before it got its name in `folder`, and the name after that.

    `written`: begins the name that the file had while it was written.
    """
    moved = next(n for n, act in enumerate(acts) if act in {("move", name), ("link", name)})
    before = any(act == "sync" and what.startswith(written) for act, what in acts[:moved])
    return before and ("sync", folder) in acts[moved:]
