"""Compiled PoCo contracts as npm delivers them: bytecode, link references and function selectors.

Where each comes from, in `node_modules`:

    @iexec/poco/artifacts/contracts/**    facets, registries, the orders library, the diamond itself
    @iexec/poco/deployments/arbitrum/*    the four plain diamond parts, which the artifacts lack: they were compiled
                                          from another package
    rlc-faucet-contract/build/contracts   the RLC token
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from protocol.errors import MissingTool
from protocol.ethereum.keccak import keccak
from protocol.types import Contract

#: The diamond sends plain transfers of the native token to the facet registered under this selector (`receive`).
RECEIVE_SELECTOR = bytes.fromhex("00000000")
#: The diamond sends unknown selectors to the facet registered under this one (Diamond.sol `_fallback`).
FALLBACK_SELECTOR = bytes.fromhex("ffffffff")
#: Where artifacts are: npm package and folder in it.
_FOLDERS = (
    ("@iexec/poco", "artifacts/contracts"),
    ("@iexec/poco", "deployments/arbitrum"),
    ("rlc-faucet-contract", "build/contracts"),
)


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the bytecode where a library's address belongs; `start` counts bytes."""

    library: str
    start: int


@dataclass(frozen=True)
class Artifact:
    """One compiled contract; `bytecode` is creation code in hex without `0x`, library addresses still blank."""

    name: str
    bytecode: str
    functions: tuple[str, ...]
    has_receive: bool
    has_fallback: bool
    links: tuple[Link, ...]

    @cached_property
    def selectors(self) -> tuple[bytes, ...]:
        """The 4-byte selectors the diamond must send to this facet, in ABI order."""
        own = [keccak(signature.encode())[:4] for signature in self.functions]
        own += [RECEIVE_SELECTOR] if self.has_receive else []
        own += [FALLBACK_SELECTOR] if self.has_fallback else []
        return tuple(own)

    def linked(self, libraries: Mapping[str, Contract]) -> bytes:
        """Creation code with the addresses of `libraries` filled in."""
        code = self.bytecode
        for link in self.links:
            at = 2 * link.start
            code = code[:at] + libraries[link.library].removeprefix("0x") + code[at + 40 :]
        return bytes.fromhex(code)


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """Finds artifacts under one `node_modules` folder. Raises MissingTool if a package is not installed."""

    node_modules: Path

    def poco(self, path: str) -> Artifact:
        """A contract compiled by PoCo itself, e.g. `facets/IexecPoco1Facet`."""
        return read_artifact(self._require_file(f"@iexec/poco/artifacts/contracts/{path}.sol/{Path(path).name}.json"))

    def diamond_part(self, name: str) -> Artifact:
        """A contract of the plain diamond (EIP-2535), e.g. `DiamondCutFacet`."""
        return read_artifact(self._require_file(f"@iexec/poco/deployments/arbitrum/{name}.json"))

    def rlc(self) -> Artifact:
        """The RLC token of the public test faucet: a plain ERC-20 with `approveAndCall`."""
        return read_artifact(self._require_file("rlc-faucet-contract/build/contracts/RLC.json"))

    def files(self) -> list[Path]:
        """All files that contracts are read from, in a fixed order; they key the cache of saved chains."""
        folders = (self._require_file(f"{package}/package.json").parent / inner for package, inner in _FOLDERS)
        return sorted(path for folder in folders for path in folder.rglob("*.json"))

    def _require_file(self, relative: str) -> Path:
        """A file under `node_modules`. Raises MissingTool if it is absent."""
        file = self.node_modules / relative
        if not file.is_file():
            raise MissingTool(
                tool="The PoCo contracts (npm packages @iexec/poco and rlc-faucet-contract)",
                why=f"{relative} is not in {self.node_modules}",
                fix="Run `npm ci` beside package.json, or `sluice stack up`, which does it.",
            )
        return file


def read_artifact(file: Path) -> Artifact:
    """The artifact in a Hardhat, hardhat-deploy or Truffle JSON file."""
    raw: dict[str, Any] = json.loads(file.read_text())
    abi: list[dict[str, Any]] = raw["abi"]
    return Artifact(
        name=file.stem,
        bytecode=raw["bytecode"].removeprefix("0x"),
        functions=tuple(_function_signature(entry) for entry in abi if entry["type"] == "function"),
        has_receive=any(entry["type"] == "receive" for entry in abi),
        has_fallback=any(entry["type"] == "fallback" for entry in abi),
        links=tuple(_link_places(raw.get("linkReferences", {}))),
    )


def _function_signature(entry: Mapping[str, Any]) -> str:
    """`name(type,type)` of a function in an ABI."""
    return f"{entry['name']}({','.join(_canonical_type(part) for part in entry['inputs'])})"


def _canonical_type(part: Mapping[str, Any]) -> str:
    """The canonical type of an ABI parameter, with tuples spelled out."""
    kind: str = part["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_canonical_type(member) for member in part['components'])}){kind.removeprefix('tuple')}"


def _link_places(references: Mapping[str, Mapping[str, list[dict[str, int]]]]) -> Iterable[Link]:
    """The places in the bytecode where library addresses belong, from a compiler's link references."""
    for libraries in references.values():
        for library, places in libraries.items():
            yield from (Link(library, place["start"]) for place in places)
