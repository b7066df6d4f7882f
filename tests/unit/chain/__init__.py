"""Unit tests of chain/: no node, no sockets."""

from __future__ import annotations
