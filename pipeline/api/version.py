"""Sluice's version, as the API reports it."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("sluice")
