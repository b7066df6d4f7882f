"""The ABIs that are shipped, against the npm packages that they were taken from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chain.contracts.contract import Abi, read_abi
from ops.poco.state import PocoState
from ops.stack import tools

_POCO = "@iexec/poco/artifacts/contracts"
SOURCES = {
    Abi.HUB: f"{_POCO}/IexecInterfaceToken.sol/IexecInterfaceToken.json",
    Abi.APP_REGISTRY: f"{_POCO}/registries/apps/AppRegistry.sol/AppRegistry.json",
    Abi.DATASET_REGISTRY: f"{_POCO}/registries/datasets/DatasetRegistry.sol/DatasetRegistry.json",
    Abi.WORKERPOOL_REGISTRY: f"{_POCO}/registries/workerpools/WorkerpoolRegistry.sol/WorkerpoolRegistry.json",
    Abi.WORKERPOOL: f"{_POCO}/registries/workerpools/Workerpool.sol/Workerpool.json",
    Abi.RLC: "rlc-faucet-contract/build/contracts/RLC.json",
}


@pytest.mark.parametrize("name", Abi)
def test_an_abi_is_the_packages_own(name: Abi, poco_state: PocoState) -> None:
    # The saved chain was made from the packages, so they are installed.
    assert poco_state.path.exists()
    package: Path = tools.root() / "node_modules" / SOURCES[name]

    assert json.loads(package.read_text())["abi"] == read_abi(name)
