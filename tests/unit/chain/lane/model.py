"""A chain in a few lists, with every trouble a node can make, and a contract that counts what is done to it.

contract    once(x)    succeeds the first time, reverts after that (as PoCo does)
            any(x)     always succeeds: whatever runs twice is counted twice
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chain.lane.model.intent import Intent
from chain.lane.model.nonce import TRANSFER_GAS, Attempt
from chain.lane.rules.encoding import Call
from chain.lane.rules.readiness import READY, Judgement, Moment, ReadinessVerdict
from chain.lane.signer import Unsigned
from chain.rpc.announced import AnnouncedHead
from protocol.errors import BadMessage, RpcError, RpcUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Contract, TxHash, Wallet, Wei

CHAIN_ID = 5
WALLET = Wallet("0x" + "11" * 20)
CONTRACT = Contract("0x" + "cc" * 20)
GWEI = 10**9
GENESIS_TIME = 1_700_000_000
#: A stranger's transaction with our key.
FOREIGN = "foreign"
#: What a node in trouble says: nothing, an error in several words, half an answer. `cut` is no answer at all.
FOG: dict[str, Any] = {
    "null": None,
    "empty": "0x",
    "shape": {"unexpected": "0x1"},
    "indexing": RpcError(method="eth_x", code=-32000, message="transaction indexing is in progress"),
    "busy": RpcError(method="eth_x", code=-32005, message="too many requests"),
    "behind": RpcError(method="eth_x", code=-32000, message="header not found"),
    "cut": None,
}


@dataclass(frozen=True, slots=True)
class Tx:
    hash: str
    nonce: int
    max_fee: int
    tip: int
    data: str
    gas: int = 10**9


@dataclass(frozen=True, slots=True)
class Block:
    number: int
    hash: str
    txs: tuple[Tx, ...]
    base_fee: int
    #: Hashes of those that reverted.
    reverted: frozenset[str]


class ModelSigner:
    """Signs by writing JSON: the model can read it back."""

    wallet = WALLET

    def sign(self, unsigned: Sequence[Unsigned]) -> list[Attempt]:
        return [self._sign(item) for item in unsigned]

    @staticmethod
    def _sign(item: Unsigned) -> Attempt:
        body = {
            "nonce": item.nonce,
            "max_fee": item.fees.max_fee,
            "tip": item.fees.tip,
            "data": item.data,
            "gas": item.gas,
        }
        raw = "0x" + json.dumps(body).encode().hex()
        return Attempt(TxHash(to_hex(keccak(raw.encode()))), raw, item.fees, item.purpose, item.note, item.gas)


class ModelEncoder:
    """Calldata is the list of methods and subjects; `once` intents share a transaction."""

    def __init__(self, batch: int = 3) -> None:
        self._batch = batch
        #: Wei that every call pays to the contract.
        self.value = Wei(0)
        #: Subjects whose arguments make no call.
        self.misfits: set[str] = set()

    def group(self, intents: Sequence[Intent]) -> list[tuple[Intent, ...]]:
        shared = [intent for intent in intents if intent.method == "once" and not intent.alone]
        single = [intent for intent in intents if intent not in shared]
        groups = [tuple(shared[start : start + self._batch]) for start in range(0, len(shared), self._batch)]
        return [*groups, *((intent,) for intent in single)]

    def encode(self, group: tuple[Intent, ...]) -> Call:
        if self.misfits.intersection(intent.subject for intent in group):
            raise BadMessage(why="it lacks an argument")
        data = json.dumps([[intent.method, intent.subject] for intent in group])
        return Call(CONTRACT, "0x" + data.encode().hex(), 50_000 * len(group), self.value)


@dataclass(slots=True)
class ModelChain:
    """`JsonRpc` over lists. Faults are fields; set them between calls."""

    name: str = "model"
    base_fee: int = GWEI
    blocks: list[Block] = field(default_factory=list)
    pool: dict[int, Tx] = field(default_factory=dict)
    #: Subjects that may not be done yet: their intents wait.
    blocked: set[str] = field(default_factory=set)
    #: Subjects that somebody else did.
    done_by_others: set[str] = field(default_factory=set)
    balance: int = 10**24
    #: Requests fail without being seen.
    frozen: bool = False
    #: The next so many exchanges are carried out, but their answer is lost.
    lose_answers: int = 0
    #: The next so many transactions are said to be accepted and forgotten.
    swallow: int = 0
    #: Answers are from so many blocks ago.
    lag: int = 0
    #: It has thrown away the headers below this block.
    pruned_below: int = 0
    #: It has lost all its receipts.
    no_receipts: bool = False
    #: What it answers to a method instead of the truth, see FOG.
    fog: dict[str, str] = field(default_factory=dict)
    #: What it answers to a method, made from the parameters.
    lies: dict[str, Callable[[list[Any]], Any]] = field(default_factory=dict)
    #: It has thrown away the state below this block.
    stateless_below: int = 0
    #: Gas that it takes of each transaction on top, and whether an estimate tells.
    surcharge: int = 0
    estimates_surcharge: bool = True
    #: Most gas that a block holds; None: the node does not tell, and takes whatever comes.
    block_gas: int | None = None
    #: Subjects whose calls revert whenever they are run without being sent.
    reverting: set[str] = field(default_factory=set)
    #: Subjects whose calls revert in a block, for a reason that no rule knows.
    failing: set[str] = field(default_factory=set)
    #: Words with which transactions whose calldata names this subject are refused.
    refuses: dict[str, str] = field(default_factory=dict)
    per_block: int = 8
    asked: Counter[str] = field(default_factory=Counter)
    #: Every hash ever seen, for looking into failures.
    seen: dict[str, Tx] = field(default_factory=dict)
    _salt: int = 0

    def __post_init__(self) -> None:
        self.mine()

    # -- the chain's own life ------------------------------------------------------------------------------------------

    def mine(self) -> Block:
        """One block from the pool."""
        self._salt += 1
        taken: list[Tx] = []
        nonce = self.count()
        while len(taken) < self.per_block and nonce in self.pool and self._goes(self.pool[nonce]):
            taken.append(self.pool.pop(nonce))
            nonce += 1
        done = self.done()
        reverted: set[str] = set()
        for tx in taken:
            once = [subject for method, subject in calls_of(tx) if method == "once"]
            if any(subject in done or subject in self.failing for subject in once):
                reverted.add(tx.hash)
            else:
                done |= set(once)
        number = len(self.blocks)
        digest = to_hex(keccak(f"{number}-{self._salt}".encode()))
        block = Block(number, digest, tuple(taken), self.base_fee, frozenset(reverted))
        self.blocks.append(block)
        return block

    def _goes(self, tx: Tx) -> bool:
        return tx.max_fee >= self.base_fee and tx.gas >= TRANSFER_GAS + self.surcharge

    def reorg(self, depth: int, *, keep: bool) -> None:
        """Replace the last blocks by empty ones; `keep`: their transactions go back into the pool."""
        removed = [tx for block in self.blocks[-depth:] for tx in block.txs] if depth else []
        del self.blocks[len(self.blocks) - depth :]
        if keep:
            for tx in removed:
                self.pool.setdefault(tx.nonce, tx)
        kept, self.pool = self.pool, {}
        for _ in range(depth):
            self.mine()
        self.pool = kept

    def drop(self, nonce: int | None = None) -> None:
        """Forget pooled transactions: all, or those from `nonce` on."""
        self.pool = {} if nonce is None else {key: tx for key, tx in self.pool.items() if key < nonce}

    def foreign(self) -> None:
        """A foreign transaction, signed with our key, takes the next nonce."""
        nonce = self.count()
        self.pool[nonce] = Tx(f"0xf{self._salt:063x}", nonce, self.base_fee * 100, GWEI, FOREIGN)
        self.mine()

    # -- what is so on it ----------------------------------------------------------------------------------------------

    def count(self, blocks: Sequence[Block] | None = None) -> int:
        """Mined transactions."""
        return sum(len(block.txs) for block in (self.blocks if blocks is None else blocks))

    def executed(self) -> Counter[str]:
        """How often each subject was done successfully."""
        return Counter(
            subject
            for block in self.blocks
            for tx in block.txs
            if tx.hash not in block.reverted
            for _, subject in calls_of(tx)
        )

    def done(self) -> set[str]:
        """Subjects that `once` refuses."""
        return set(self.executed()) | self.done_by_others

    def announced(self) -> AnnouncedHead:
        """The newest block, as a subscription announces it to one that has heard of none before."""
        header = self._header(self.blocks, "latest", 0)
        assert header is not None
        return AnnouncedHead(header)

    # -- JsonRpc -------------------------------------------------------------------------------------------------------

    def call(self, method: str, *params: object) -> Any:
        (answer,) = self.batch([(method, params)])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, requests: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        if self.frozen or any(self.fog.get(method) == "cut" for method, _ in requests):
            raise RpcUnavailable(what=self.name, why="frozen")
        answers = [self._answer(method, list(params)) for method, params in requests]
        if self.lose_answers:
            self.lose_answers -= 1
            raise RpcUnavailable(what=self.name, why="answer lost")
        return answers

    def _answer(self, method: str, params: list[Any]) -> Any:
        self.asked[method] += 1
        if method in self.fog:
            return FOG[self.fog[method]]
        if method in self.lies:
            return self.lies[method](params)
        shown = self.blocks[: max(1, len(self.blocks) - self.lag)]
        answers: dict[str, Callable[[], Any]] = {
            "eth_getBlockByNumber": lambda: self._header(shown, params[0], self.pruned_below, full=params[1]),
            "eth_getTransactionCount": lambda: self._count_at(shown, params[1]),
            "eth_getTransactionByHash": lambda: self._transaction(shown, params[0]),
            "eth_estimateGas": lambda: self._estimate(params[0]),
            "eth_call": lambda: self._objection_to_run(params[0]) or "0x",
            "eth_getBalance": lambda: hex(self.balance),
            "eth_maxPriorityFeePerGas": lambda: hex(GWEI),
            "eth_gasPrice": lambda: hex(self.base_fee + GWEI),
            "eth_feeHistory": lambda: {"reward": [[hex(3 * GWEI)]] * 3},
            "eth_getTransactionReceipt": lambda: None if self.no_receipts else self._receipt(shown, params[0]),
            "eth_sendRawTransaction": lambda: self._send(params[0]),
        }
        return answers[method]()

    def _header(self, shown: Sequence[Block], tag: str, below: int, *, full: bool = False) -> dict[str, Any] | None:
        number = len(shown) - 1 if tag == "latest" else int(tag, 16)
        if not below <= number < len(shown):
            return None
        block = shown[number]
        return {
            "number": hex(number),
            "hash": block.hash,
            "parentHash": shown[number - 1].hash if number else "0x" + 64 * "0",
            "timestamp": hex(GENESIS_TIME + number),
            "baseFeePerGas": hex(block.base_fee),
            "transactions": [_json(tx, block.number) if full else tx.hash for tx in block.txs],
            **({} if self.block_gas is None else {"gasLimit": hex(self.block_gas)}),
        }

    def _count_at(self, shown: Sequence[Block], tag: str) -> Any:
        if tag == "latest":
            return hex(self.count(shown))
        number = int(tag, 16)
        if not self.stateless_below <= number < len(shown):
            return RpcError(method="eth_getTransactionCount", code=-32000, message="missing trie node")
        return hex(self.count(shown[: number + 1]))

    def _transaction(self, shown: Sequence[Block], tx_hash: str) -> dict[str, Any] | None:
        mined = next((_json(tx, block.number) for block in shown for tx in block.txs if tx.hash == tx_hash), None)
        pooled = next((_json(tx, None) for tx in self.pool.values() if tx.hash == tx_hash), None)
        return mined or pooled

    def _estimate(self, asked: dict[str, str]) -> Any:
        data = bytes.fromhex(asked["data"][2:])
        surcharge = self.surcharge if self.estimates_surcharge else 0
        return self._objection_to_run(asked) or hex(
            TRANSFER_GAS + 16 * len(data) - 12 * data.count(0) + surcharge + (10_000 if asked["to"] == CONTRACT else 0)
        )

    def _objection_to_run(self, asked: dict[str, str]) -> RpcError | None:
        if asked["to"] != CONTRACT:
            return None
        done = self.done()
        for method, subject in calls_of(Tx("", 0, 0, 0, asked["data"])):
            if subject in self.reverting or (method == "once" and subject in done):
                return RpcError(method="eth_call", code=3, message="execution reverted", data="0x")
        return None

    @staticmethod
    def _receipt(shown: Sequence[Block], tx_hash: str) -> dict[str, Any] | None:
        for block in shown:
            for tx in block.txs:
                if tx.hash == tx_hash:
                    return {
                        "transactionHash": tx.hash,
                        "blockNumber": hex(block.number),
                        "blockHash": block.hash,
                        "status": hex(int(tx.hash not in block.reverted)),
                        "gasUsed": hex(21_000),
                        "effectiveGasPrice": hex(block.base_fee + tx.tip),
                    }
        return None

    def _send(self, raw: str) -> Any:
        body = json.loads(bytes.fromhex(raw[2:]))
        tx = Tx(to_hex(keccak(raw.encode())), body["nonce"], body["max_fee"], body["tip"], body["data"], body["gas"])
        self.seen[tx.hash] = tx
        if self.swallow:
            self.swallow -= 1
            return tx.hash
        words = self._objection(tx)
        if words is not None:
            return RpcError(method="eth_sendRawTransaction", code=-32000, message=words)
        self.pool[tx.nonce] = tx
        return tx.hash

    def _objection(self, tx: Tx) -> str | None:
        held = self.pool.get(tx.nonce)
        if tx.nonce < self.count():
            return "nonce too low"
        for subject, words in self.refuses.items():
            if [subject] == [name for _, name in calls_of(tx)]:
                return words
        if tx.gas < TRANSFER_GAS + self.surcharge:
            return "intrinsic gas too low"
        if self.block_gas is not None and tx.gas > self.block_gas:
            return "exceeds block gas limit"
        if held is not None and held.hash == tx.hash:
            return "already known"
        if tx.max_fee < self.base_fee:
            return "max fee per gas less than block base fee"
        if held is not None and (tx.max_fee * 10 < held.max_fee * 11 or tx.tip * 10 < held.tip * 11):
            return "replacement transaction underpriced"
        return None


class ModelReadiness:
    """Asks the model's contract; `any` is not asked about being done, so that nothing hides a second time."""

    def __init__(self, chain: ModelChain) -> None:
        self._chain = chain
        #: How many it was asked about each time.
        self.judged: list[int] = []

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        self.judged.append(len(intents))
        done = self._chain.done()
        return [self._verdict(intent, done) for intent in intents]

    def _verdict(self, intent: Intent, done: set[str]) -> ReadinessVerdict:
        if intent.subject in self._chain.blocked:
            return ReadinessVerdict(Judgement.WAIT, "blocked")
        if intent.method == "once" and intent.subject in done:
            return ReadinessVerdict(Judgement.DONE, "done already")
        return READY


def _json(tx: Tx, block: int | None) -> dict[str, Any]:
    return {
        "hash": tx.hash,
        "from": WALLET.upper().replace("X", "x"),
        "nonce": hex(tx.nonce),
        "blockNumber": None if block is None else hex(block),
    }


def calls_of(tx: Tx) -> list[tuple[str, str]]:
    """What a transaction does: (method, subject) each."""
    if tx.data in ("0x", FOREIGN):
        return []
    return [(method, subject) for method, subject in json.loads(bytes.fromhex(tx.data[2:]))]
