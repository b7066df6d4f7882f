"""A lane on a real node: intents that pay one wei to an address of their own, so that the chain itself counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.nonce import NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.encoding import PocoEncoder
from chain.lane.rules.readiness import AlwaysReady
from chain.lane.run import Lane, RunReport
from chain.lane.signer import KeySigner
from chain.lane.store.port import LaneStore
from chain.rpc.answers import decode_replies, values
from chain.rpc.client import JsonRpc, Rpc
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import Key
from protocol.types import ZERO_ADDRESS, Contract, Wallet
from tests.waiting import wait_until

#: Gas of a transfer to a fresh account.
GAS = 21_000
#: Seconds in which everything here has long happened, on a busy machine too.
WAIT_SECONDS = 60.0
#: Shallow, so that tests see finality, with a lease that those who wait for its end need not wait long for.
POLICY = LanePolicy(finality=4, lease=2.0)


def address_of(name: str) -> Contract:
    """The account that intent `name` pays."""
    return Contract(to_hex(keccak(name.encode())[:20]))


def payment(chain_id: int, wallet: Wallet, name: str, now: float = 1.0) -> Intent:
    """Pay one wei to the account of `name`."""
    args = {"to": address_of(name), "gas": GAS, "value": 1}
    return Intent.new(chain_id, wallet, "call", name, args, now)


def lane_of(
    store: LaneStore, rpc: JsonRpc, key: Key, policy: LanePolicy = POLICY, *, chain_id: int = 31337, signer: Any = None
) -> Lane:
    """A lane for payments."""
    return Lane(chain_id, store, rpc, signer or KeySigner(key), AlwaysReady(), PocoEncoder(ZERO_ADDRESS), policy)


@dataclass(slots=True)
class LaneRig:
    """One wallet's payments on one node."""

    rpc: Rpc
    store: LaneStore
    key: Key
    policy: LanePolicy = POLICY
    chain_id: int = 31337
    #: Whether blocks come only when they are asked for.
    by_hand: bool = False
    lane: Lane = field(init=False)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lane = self.new_lane()

    def new_lane(self) -> Lane:
        """A lane without memory, as after a restart."""
        return lane_of(self.store, self.rpc, self.key, self.policy, chain_id=self.chain_id)

    def submit(self, *names: str) -> None:
        """Submit payments."""
        offset = len(self.names)
        self.names += names
        self.lane.submit(
            [payment(self.chain_id, self.key.wallet, name, offset + number) for number, name in enumerate(names)]
        )

    def intent(self, name: str) -> Intent:
        """As it stands."""
        return self.store.intents([payment(self.chain_id, self.key.wallet, name).key])[0]

    def states(self) -> list[IntentState]:
        """Of all submitted."""
        keys = [payment(self.chain_id, self.key.wallet, name).key for name in self.names]
        found = {intent.key: intent.state for intent in self.store.intents(keys)}
        return [found[key] for key in keys]

    def head(self) -> int:
        """Of the node."""
        return int(self.rpc.call("eth_blockNumber"), 16)

    def run(self) -> RunReport:
        """A run, and those it asks for."""
        report = self.lane.run()
        for _ in range(5):
            if not report.wake_again:
                break
            report = self.lane.run()
        return report

    def next_block(self) -> int:
        """Wait for a block, or have it mined; its number."""
        if self.by_hand:
            self.rpc.call("evm_mine")
            return self.head()
        before = self.head()
        return wait_until(lambda: head if (head := self.head()) != before else 0, WAIT_SECONDS, what="a block")

    def drive(self, until: Callable[[], bool], *, blocks: int = 200) -> int:
        """Run at every head until the condition holds; how many blocks that took."""
        for number in range(blocks):
            report = self.run()
            assert report.halted is None, report.halted
            if until():
                return number
            self.next_block()
        raise AssertionError(f"not so after {blocks} blocks: {self.states()}")

    def all_in(self, *states: IntentState) -> Callable[[], bool]:
        """Whether all submitted are in one of these states."""
        return lambda: all(state in states for state in self.states())

    def all_mined(self) -> bool:
        """Whether all submitted are in a block."""
        return all(state in (IntentState.MINED, IntentState.FINAL) for state in self.states())

    def all_final(self) -> bool:
        """Whether all submitted are FINAL, and no nonce is open."""
        return self.all_in(IntentState.FINAL)() and not self.store.records(self.lane.id, [NonceState.OPEN])

    def check(self) -> None:
        """Each payment was made exactly once, and the nonces have no gap."""
        balances = balances_of(self.rpc, self.names)
        assert balances == dict.fromkeys(self.names, 1)
        pending = int(self.rpc.call("eth_getTransactionCount", self.key.wallet, "pending"), 16)
        mined = int(self.rpc.call("eth_getTransactionCount", self.key.wallet, "latest"), 16)
        highest = self.store.highest_nonce(self.lane.id)
        assert highest is not None
        assert pending == mined == highest + 1


def balances_of(rpc: JsonRpc, names: Sequence[str]) -> dict[str, int]:
    """What each payment's account holds, in wei."""
    answers = rpc.batch([("eth_getBalance", (address_of(name), "latest")) for name in names])
    held = values(decode_replies(answers, lambda amount: int(amount, 16)), rpc.name)
    return dict(zip(names, held, strict=True))
