"""Tests of a worker machine's pure parts and of what only needs a folder."""

from __future__ import annotations
