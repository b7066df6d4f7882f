"""The version that workers and requesters are told."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("sluice")
