"""Compiled contracts: libraries, selectors, and files that are not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.poco.artifacts import FALLBACK_SELECTOR, RECEIVE_SELECTOR, Artifact, ArtifactStore, Link, read_artifact
from protocol.errors import MissingTool
from protocol.types import Contract


def test_a_library_address_fills_every_blank_left_for_it() -> None:
    blank = "__$0123456789abcdef0123456789abcdef01$__"
    code = "aabb" + blank + "cc" + blank
    artifact = Artifact("Facet", code, (), False, False, (Link("Lib", 2), Link("Lib", 23)))

    linked = artifact.linked({"Lib": Contract("0x" + "11" * 20)})

    assert linked.hex() == "aabb" + "11" * 20 + "cc" + "11" * 20


def test_a_library_that_is_not_deployed_yet_is_an_error_not_a_zero() -> None:
    artifact = Artifact("Facet", "00" * 22, (), False, False, (Link("Lib", 1),))

    with pytest.raises(KeyError):
        artifact.linked({})


def test_selectors_cover_functions_plain_transfers_and_unknown_calls(tmp_path: Path) -> None:
    order = {
        "type": "tuple[]",
        "components": [{"type": "address"}, {"type": "tuple", "components": [{"type": "bytes32"}]}],
    }
    abi = [
        {"type": "function", "name": "transfer", "inputs": [{"type": "address"}, {"type": "uint256"}]},
        {"type": "function", "name": "take", "inputs": [order]},
        {"type": "event", "name": "Transfer", "inputs": []},
        {"type": "receive"},
        {"type": "fallback"},
    ]
    file = tmp_path / "Facet.json"
    file.write_text(json.dumps({"abi": abi, "bytecode": "0x6000", "linkReferences": {}}))

    facet = read_artifact(file)

    assert facet.functions == ("transfer(address,uint256)", "take((address,(bytes32))[])")
    assert facet.selectors[0].hex() == "a9059cbb"
    assert facet.selectors[2:] == (RECEIVE_SELECTOR, FALLBACK_SELECTOR)


def test_contracts_that_are_not_installed_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(MissingTool, match=r"@iexec/poco.*npm ci"):
        ArtifactStore(tmp_path).rlc()
