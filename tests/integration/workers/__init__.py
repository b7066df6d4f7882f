"""Tests of a worker machine on a real Docker engine, broker and chain."""

from __future__ import annotations
