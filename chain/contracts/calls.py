"""Calldata of every PoCo function Sluice calls, and how much gas each may use.

Selectors come from the signatures of @iexec/poco 6.1.0 and are computed once at import. Functions that send are typed
Python functions returning `0x` hex; functions that read are `Function` values, because their answers need decoding too
(`chain.contracts.hub` does that for the PoCo views).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chain.contracts.abi import Function
from protocol.poco.orders import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder
from protocol.types import ZERO_ADDRESS, Contract, DealId, Hash32, NRlc, Signature, TaskId, Wallet

# -- life of a task (IexecPoco2Facet) ----------------------------------------------------------------------------------
INITIALIZE = Function("initialize(bytes32,uint256)")
INITIALIZE_ARRAY = Function("initializeArray(bytes32[],uint256[])")
CONTRIBUTE = Function("contribute(bytes32,bytes32,bytes32,address,bytes,bytes)")
REVEAL = Function("reveal(bytes32,bytes32)")
FINALIZE = Function("finalize(bytes32,bytes,bytes)")
CONTRIBUTE_AND_FINALIZE = Function("contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)")
REOPEN = Function("reopen(bytes32)")
CLAIM = Function("claim(bytes32)")
CLAIM_ARRAY = Function("claimArray(bytes32[])")

# -- orders (IexecPoco1Facet); the tuples are those of protocol.poco.orders -----------------------------------------
_ORDER_TYPES = ",".join(order.abi_type() for order in (AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder))
MATCH_ORDERS = Function(f"matchOrders({_ORDER_TYPES})", ("bytes32",))
#: Reverts with one of REASONS unless this dataset order allows a deal without a dataset to use its dataset.
CHECK_DATASET_ORDER = Function(f"assertDatasetDealCompatibility({DatasetOrder.abi_type()},bytes32)")
#: Selectors of revert data that give a reason; the second is Solidity's own.
REASONS = (Function("IncompatibleDatasetOrder(string)", ("string",)), Function("Error(string)", ("string",)))
#: Order, operation, signature of the operation; the contract ignores the last if the owner sends it.
MANAGE_WORKERPOOL_ORDER = Function(f"manageWorkerpoolOrder(({WorkerpoolOrder.abi_type()},uint8,bytes))")
#: OrderOperationEnum: 0 signs the order on chain.
_CLOSE = 1

# -- money (IexecEscrowTokenFacet, IexecERC20Facet, RLC) ---------------------------------------------------------------
DEPOSIT = Function("deposit(uint256)", ("bool",))
WITHDRAW = Function("withdraw(uint256)", ("bool",))
#: Of the RLC contract: approves the deposit and lets the hub take it, in one transaction.
APPROVE_AND_CALL = Function("approveAndCall(address,uint256,bytes)", ("bool",))
#: Of a hub whose RLC is the native token (IexecEscrowNativeFacet): the amount is the transaction's value.
DEPOSIT_NATIVE = Function("deposit()", ("bool",))
TRANSFER = Function("transfer(address,uint256)", ("bool",))

# -- registries, workerpool policy, categories -------------------------------------------------------------------------
IS_REGISTERED = Function("isRegistered(address)", ("bool",))
CREATE_CATEGORY = Function("createCategory(string,string,uint256)", ("uint256",))

# -- views (IexecPocoAccessorsFacet) -----------------------------------------------------------------------------------
_RESOURCE = "(address,address,uint256)"
#: status, deal, index, timeref, contribution, reveal and final deadline, consensus, reveal counter, winner counter,
#: contributors, digest, results, results timestamp, callback.
_TASK = (
    "(uint8,bytes32,uint256,uint256,uint256,uint256,uint256,"
    "bytes32,uint256,uint256,address[],bytes32,bytes,uint256,bytes)"
)
VIEW_TASK = Function("viewTask(bytes32)", (_TASK,))
#: status, result hash, result seal, enclave challenge, weight.
VIEW_CONTRIBUTION = Function("viewContribution(bytes32,address)", ("(uint8,bytes32,bytes32,address,uint256)",))
#: app, dataset, workerpool (each pointer, owner, price), trust, category, tag, requester, beneficiary, callback,
#: params, start time, bot first, bot size, worker stake, scheduler reward ratio, sponsor.
_DEAL = (
    f"({_RESOURCE},{_RESOURCE},{_RESOURCE},uint256,uint256,bytes32,address,address,address,string,"
    "uint256,uint256,uint256,uint256,uint256,address)"
)
VIEW_DEAL = Function("viewDeal(bytes32)", (_DEAL,))
#: stake, locked; nRLC.
VIEW_ACCOUNT = Function("viewAccount(address)", ("(uint256,uint256)",))
VIEW_SCORE = Function("viewScore(address)", ("uint256",))
#: name, description, seconds.
VIEW_CATEGORY = Function("viewCategory(uint256)", ("(string,string,uint256)",))
#: owner, name, type, address of the image, checksum, enclave measurement.
VIEW_APP = Function("viewApp(address)", ("(address,string,string,bytes,bytes32,bytes)",))
#: owner, name, address of the file, checksum.
VIEW_DATASET = Function("viewDataset(address)", ("(address,string,bytes,bytes32)",))
#: owner, description, worker stake ratio, scheduler reward ratio.
VIEW_WORKERPOOL = Function("viewWorkerpool(address)", ("(address,string,uint256,uint256)",))
#: Volume of the order with this hash that deals have used; all of it once the order is closed.
VIEW_CONSUMED = Function("viewConsumed(bytes32)", ("uint256",))
TOKEN = Function("token()", ("address",))
APP_REGISTRY = Function("appregistry()", ("address",))
DATASET_REGISTRY = Function("datasetregistry()", ("address",))
WORKERPOOL_REGISTRY = Function("workerpoolregistry()", ("address",))
BALANCE_OF = Function("balanceOf(address)", ("uint256",))

#: An order as the contract takes it: values in the contract's order, hex strings for bytes (protocol.poco.orders).
OrderTuple = tuple[object, ...]
_NO_SIGNATURE = Signature("0x")


def initialize(deal_id: DealId, index: int) -> str:
    """Calldata that makes task `index` of a deal exist on chain. Anybody may send it."""
    return INITIALIZE.encode(deal_id, index)


def initialize_array(tasks: Sequence[tuple[DealId, int]]) -> str:
    """Calldata that initializes several tasks, each as (deal, index).

    Reverts as a whole if one exists already or is too late.
    """
    return INITIALIZE_ARRAY.encode([deal for deal, _ in tasks], [index for _, index in tasks])


def contribute(
    task_id: TaskId,
    result_hash: Hash32,
    result_seal: Hash32,
    authorization: Signature,
    enclave_challenge: Contract = ZERO_ADDRESS,
    enclave_signature: Signature = _NO_SIGNATURE,
) -> str:
    """Calldata of a worker's vote; needs the workerpool's `authorization` for this worker and task."""
    return CONTRIBUTE.encode(task_id, result_hash, result_seal, enclave_challenge, enclave_signature, authorization)


def reveal(task_id: TaskId, digest: Hash32) -> str:
    """Calldata that shows the digest behind the sender's own vote."""
    return REVEAL.encode(task_id, digest)


def finalize(task_id: TaskId, results: str, callback: str = "0x") -> str:
    """Calldata that ends a revealed task; `results` and `callback` as `0x` hex.

    Only the workerpool's owner may send it.
    """
    return FINALIZE.encode(task_id, results, callback)


def contribute_and_finalize(
    task_id: TaskId,
    digest: Hash32,
    results: str,
    authorization: Signature,
    callback: str = "0x",
    enclave_challenge: Contract = ZERO_ADDRESS,
    enclave_signature: Signature = _NO_SIGNATURE,
) -> str:
    """Calldata that votes, reveals and finalizes in one; only for trust 1, and before any other worker contributes."""
    return CONTRIBUTE_AND_FINALIZE.encode(
        task_id, digest, results, callback, enclave_challenge, enclave_signature, authorization
    )


def reopen(task_id: TaskId) -> str:
    """Calldata that starts the vote again after the reveal deadline passed without a reveal.

    Only the workerpool's owner may send it.
    """
    return REOPEN.encode(task_id)


def claim(task_id: TaskId) -> str:
    """Calldata that fails a task past its final deadline and frees its stakes. Anybody may send it."""
    return CLAIM.encode(task_id)


def claim_array(task_ids: Sequence[TaskId]) -> str:
    """Calldata that claims several tasks. Reverts as a whole if one cannot be claimed."""
    return CLAIM_ARRAY.encode(list(task_ids))


def match_orders(app: OrderTuple, dataset: OrderTuple, workerpool: OrderTuple, request: OrderTuple) -> str:
    """Calldata that makes a deal of four signed orders (an all-zero dataset order for none)."""
    return MATCH_ORDERS.encode(app, dataset, workerpool, request)


def close_workerpool_order(order: OrderTuple) -> str:
    """Calldata that ends an order for good, whatever is left of it; only the workerpool's owner may send it."""
    return MANAGE_WORKERPOOL_ORDER.encode((order, _CLOSE, b""))


def transfer(to: Wallet, amount: NRlc) -> str:
    """Calldata that transfers RLC from the sender; for the RLC contract."""
    return TRANSFER.encode(to, amount)


def create_category(name: str, description: str, seconds: int) -> str:
    """Calldata that adds a category; only the hub's owner may send it."""
    return CREATE_CATEGORY.encode(name, description, seconds)


@dataclass(frozen=True, slots=True)
class GasLimit:
    """Gas one call may use: `base` plus `per_byte` for each byte of calldata."""

    base: int
    per_byte: int = 0

    def of(self, calldata: str) -> int:
        """Gas that a call with this calldata (`0x` hex) may use."""
        return self.base + self.per_byte * (len(calldata) // 2 - 1)


#: Storing bytes costs up to 750 gas each (22,100 per fresh 32-byte word) plus 16 to send; with 25 % on top.
_STORED = 1000
#: Gas limits by function. Measured use on PoCo 6.1.0 in the comments; margins cover TEE signatures, callbacks (100,000
#: given on) and up to some ten contributors, whose votes the contract walks through. What is not used is not paid.
GAS_LIMITS: Mapping[str, GasLimit] = {
    "initialize": GasLimit(320_000),  # 222,000 to 242,000
    # 169,000 to 175,000 a task of 64 bytes; 75 tasks stay below the 16.7 million of EIP-7825.
    "initializeArray": GasLimit(150_000, 2_900),
    "contribute": GasLimit(700_000),  # 277,000 to 422,000
    "reveal": GasLimit(150_000),  # 56,000 to 93,000
    "finalize": GasLimit(1_500_000, _STORED),  # 211,000 to 431,000, with 1 kB of results 971,000
    "contributeAndFinalize": GasLimit(1_000_000, _STORED),  # 502,000 to 610,000
    "reopen": GasLimit(400_000),  # 68,000
    "claim": GasLimit(600_000),  # 147,000 and more with contributors
    "claimArray": GasLimit(300_000, 5_000),  # 37,000 to 45,000 a task of 32 bytes, more with contributors
    "matchOrders": GasLimit(1_100_000, 300),  # 643,000 to 1,053,000; of some 2,000 bytes only the params are stored
    "manageWorkerpoolOrder": GasLimit(150_000),  # 59,000
    "deposit": GasLimit(150_000),
    "depositFor": GasLimit(150_000),
    "withdraw": GasLimit(150_000),
    "approve": GasLimit(100_000),
    "approveAndCall": GasLimit(250_000),
    "transfer": GasLimit(100_000),
    "createApp": GasLimit(900_000, _STORED),  # 582,000
    "createDataset": GasLimit(900_000, _STORED),  # 553,000
    "createWorkerpool": GasLimit(900_000, _STORED),  # 549,000
    "changePolicy": GasLimit(150_000),
    "createCategory": GasLimit(300_000, _STORED),
}


def gas_limit(method: str, calldata: str) -> int:
    """Gas to allow for a call of `method` (a key of GAS_LIMITS) with this calldata."""
    return GAS_LIMITS[method].of(calldata)
