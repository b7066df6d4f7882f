"""Puts the real PoCo contracts on an empty development chain, in token mode, as their own deployment script does.

Left out is the registries' base URI, which only NFT marketplaces read.

    RLC token ─────────────────────────────┐
    orders library ─► facets ─► diamond ◄──┼── configure(token, registries)
    app, dataset, workerpool registries ───┘   createCategory × 7

Plain CREATE from a fresh account: the same key gives the same addresses every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import structlog
from eth_abi.abi import encode

from chain.contracts import calls
from chain.contracts.abi import Function
from ops.poco.artifacts import Artifact, ArtifactStore
from ops.poco.sender import DirectSender, TxRequest
from protocol.ethereum.hexbytes import to_bytes
from protocol.types import ZERO_ADDRESS, Contract, NRlc, Wallet

log = structlog.get_logger(__name__)

#: Facets of the hub in token mode, in the order in which they are cut in; a selector belongs to the first that has it.
FACETS = (
    "IexecAccessorsABILegacyFacet",
    "IexecCategoryManagerFacet",
    "IexecConfigurationExtraFacet",
    "IexecConfigurationFacet",
    "IexecERC20Facet",
    "IexecEscrowTokenFacet",
    "IexecOrderManagementFacet",
    "IexecPoco1Facet",
    "IexecPoco2Facet",
    "IexecPocoAccessorsFacet",
    "IexecPocoBoostFacet",
    "IexecPocoBoostAccessorsFacet",
    "IexecRelayFacet",
)
#: Parts of every diamond, given to its constructor.
DIAMOND_PARTS = ("DiamondCutFacet", "DiamondLoupeFacet", "OwnershipFacet")
REGISTRIES = {
    "app": "apps/AppRegistry",
    "dataset": "datasets/DatasetRegistry",
    "workerpool": "workerpools/WorkerpoolRegistry",
}
ORDERS_LIBRARY = "IexecLibOrders_v5"
#: FacetCutAction.Add of EIP-2535.
ADD = 0
DIAMOND_CUT = Function("diamondCut((address,uint8,bytes4[])[],address,bytes)")
INITIALIZE_DIAMOND = Function("init()")
INITIALIZE_REGISTRY = Function("initialize(address)")
CONFIGURE = Function("configure(address,string,string,uint8,address,address,address,address)")
#: The largest creation (a registry) takes 4.0 million gas; the cut of all facets 2.9 million (chain measurements).
DEPLOY_GAS = 6_000_000
SETUP_GAS = 500_000


@dataclass(frozen=True, slots=True)
class CategorySpec:
    """A size of task: `seconds` is workClockTimeRef, the longest an app may run."""

    name: str
    seconds: int


#: PoCo's own five, with their ids as on every public chain, then short ones for tests of timeouts.
CATEGORIES = (
    CategorySpec("XS", 300),
    CategorySpec("S", 1200),
    CategorySpec("M", 3600),
    CategorySpec("L", 10800),
    CategorySpec("XL", 36000),
    CategorySpec("TEST", 1),
    CategorySpec("TEST-10", 10),
)
#: Index in CATEGORIES, which is the id on chain.
TEST_CATEGORY = 5
TEST_10_CATEGORY = 6

#: What every development account but the deployer's gets: 1,000,000 RLC.
DEV_ALLOWANCE = NRlc(10**15)


@dataclass(frozen=True, slots=True)
class PocoAddresses:
    """Addresses of the contracts on the chain."""

    hub: Contract
    rlc: Contract
    app_registry: Contract
    dataset_registry: Contract
    workerpool_registry: Contract

    def to_json(self) -> dict[str, str]:
        """The addresses as JSON, one key for each field."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, str]) -> PocoAddresses:
        """The addresses from what `to_json` returned."""
        return cls(**{name: Contract(address) for name, address in raw.items()})


def deploy(owner: DirectSender, artifacts: ArtifactStore, *, fund: tuple[Wallet, ...] = ()) -> PocoAddresses:
    """Deploy and configure all PoCo contracts as `owner`, and give DEV_ALLOWANCE in RLC to each of `fund`.

    Each creation is mined before the next is sent, so the chain should mine at once.
    """
    rlc = _create_contract(owner, artifacts.rlc())
    library = _create_contract(owner, artifacts.poco(f"libs/{ORDERS_LIBRARY}"))
    hub = _create_diamond(owner, artifacts)
    _cut_facets(owner, artifacts, hub, {ORDERS_LIBRARY: library})
    registries = {
        kind: _create_contract(owner, artifacts.poco(f"registries/{path}")) for kind, path in REGISTRIES.items()
    }
    addresses = PocoAddresses(hub, rlc, registries["app"], registries["dataset"], registries["workerpool"])
    owner.run(_setup_calls(addresses) + [_fund_request(rlc, wallet) for wallet in fund])
    log.info("PoCo deployed.", action="poco_deployed", hub=hub, rlc=rlc)
    return addresses


def _create_contract(
    owner: DirectSender, artifact: Artifact, libraries: Mapping[str, Contract] | None = None, args: bytes = b""
) -> Contract:
    """Create a contract from its artifact and constructor arguments; its address."""
    code = artifact.linked(libraries or {}) + args
    return owner.create(code, gas=DEPLOY_GAS)


def _create_diamond(owner: DirectSender, artifacts: ArtifactStore) -> Contract:
    """Create the hub with only the functions of EIP-2535 and its owner."""
    parts = [artifacts.diamond_part(name) for name in DIAMOND_PARTS]
    cuts = [(_create_contract(owner, part), ADD, list(part.selectors)) for part in parts]
    init = _create_contract(owner, artifacts.diamond_part("DiamondInit"))
    args = encode(
        ["(address,uint8,bytes4[])[]", "(address,address,bytes)"],
        [cuts, (owner.wallet, init, to_bytes(INITIALIZE_DIAMOND.encode()))],
    )
    return _create_contract(owner, artifacts.poco("Diamond"), args=args)


def _cut_facets(
    owner: DirectSender, artifacts: ArtifactStore, hub: Contract, libraries: Mapping[str, Contract]
) -> None:
    """Add all of PoCo's functions to the hub in one diamond cut."""
    taken = {selector for name in DIAMOND_PARTS for selector in artifacts.diamond_part(name).selectors}
    cuts: list[tuple[Contract, int, list[bytes]]] = []
    for name in FACETS:
        facet = artifacts.poco(f"facets/{name}")
        fresh = [selector for selector in facet.selectors if selector not in taken]
        taken.update(fresh)
        cuts.append((_create_contract(owner, facet, libraries), ADD, fresh))
    owner.run([TxRequest(hub, DIAMOND_CUT.encode(cuts, ZERO_ADDRESS, b""), DEPLOY_GAS)])


def _setup_calls(at: PocoAddresses) -> list[TxRequest]:
    """The owner's calls that configure the contracts that `deploy` has created."""
    registries = (at.app_registry, at.dataset_registry, at.workerpool_registry)
    configure = CONFIGURE.encode(at.rlc, "Staked RLC", "SRLC", 9, *registries, ZERO_ADDRESS)
    return [
        *(TxRequest(registry, INITIALIZE_REGISTRY.encode(ZERO_ADDRESS), SETUP_GAS) for registry in registries),
        TxRequest(at.hub, configure, SETUP_GAS),
        *(TxRequest(at.hub, calls.create_category(item.name, "", item.seconds), SETUP_GAS) for item in CATEGORIES),
    ]


def _fund_request(rlc: Contract, wallet: Wallet) -> TxRequest:
    """The transaction that gives DEV_ALLOWANCE in RLC to a wallet."""
    return TxRequest(rlc, calls.transfer(wallet, DEV_ALLOWANCE), SETUP_GAS)
