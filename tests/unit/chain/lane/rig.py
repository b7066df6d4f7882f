"""A lane on the model chain with clocks that the test moves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.readiness import Readiness
from chain.lane.run import Lane, RunReport
from chain.lane.testing import MemoryStore
from tests.unit.chain.lane.model import CHAIN_ID, WALLET, ModelChain, ModelEncoder, ModelReadiness, ModelSigner

_names = itertools.count()


@dataclass(slots=True)
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Rig:
    """One wallet, its chain and its store. Lanes come and go."""

    policy: LanePolicy = field(default_factory=LanePolicy)
    chain: ModelChain = field(default_factory=ModelChain)
    clock: Clock = field(default_factory=Clock)
    encoder: ModelEncoder = field(default_factory=ModelEncoder)
    readiness: ModelReadiness = field(init=False)
    #: What intents are worth by what became known after they were queued, in wei, by key.
    worth: dict[str, int] = field(default_factory=dict)
    #: Judges by the pending state; None: nothing goes out early.
    pending: Readiness | None = None
    store: MemoryStore = field(init=False)
    lane: Lane = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)
        self.readiness = ModelReadiness(self.chain)
        self.lane = self.new_lane()

    @property
    def id(self) -> LaneId:
        return LaneId(CHAIN_ID, WALLET)

    def new_lane(self, store: object = None, chain: object = None) -> Lane:
        """A lane as another process would have it: no memory, another holder."""
        return Lane(
            CHAIN_ID,
            store or self.store,  # type: ignore[arg-type]  # wrapped by tests that crash
            chain or self.chain,  # type: ignore[arg-type]
            ModelSigner(),
            self.readiness,
            self.encoder,
            self.policy,
            clock=self.clock,
            monotonic=self.clock,
            holder=f"elsewhere|{next(_names)}",
            worth=lambda intent: self.worth.get(intent.key, intent.worth),
            pending_readiness=self.pending,
        )

    def intent(self, method: str, subject: str) -> Intent:
        self.clock.now += 0.001
        return Intent.new(CHAIN_ID, WALLET, method, subject, {}, self.clock.now)

    def submit(self, method: str, *subjects: str) -> list[str]:
        """Submit; the keys."""
        intents = [self.intent(method, subject) for subject in subjects]
        self.lane.submit(intents)
        return [intent.key for intent in intents]

    def run(self) -> RunReport:
        """A run, and those it asks for."""
        report = self.lane.run()
        for _ in range(5):
            if not report.wake_again:
                break
            report = self.lane.run()
        return report

    def step(self, blocks: int = 1) -> RunReport:
        """A run, a block, a run; `blocks` times."""
        report = self.run()
        for _ in range(blocks):
            self.chain.mine()
            self.clock.now += 1
            report = self.run()
        return report

    def state(self, key: str) -> IntentState:
        return self.store.intents([key])[0].state

    def reason(self, key: str) -> str:
        return self.store.intents([key])[0].reason
