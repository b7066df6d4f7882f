"""What the scheduler stores of deals, tasks, replicates and workers: frozen values, no I/O.

A *replicate* is one worker's attempt at one task. Records hold only what the chain cannot tell (who was asked what and
when, what a worker reported); everything on chain is folded anew into a `ChainView` at each decision, so that a reorg
needs no undoing here.

    Replicate   ASSIGNED ──► STARTED ──► COMPUTED          from here the chain: contributed, revealed
                    └───────────┴───────────┴──► FAILED    it reported that it will not contribute
                                                 LOST      its worker went silent, another worker was asked
                                                 ABORTED   the vote was decided without it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from protocol.poco.weights import score_of
from protocol.types import ZERO_ADDRESS, BlockNumber, Contract, DealId, Hash32, NRlc, TaskId, Timestamp, Wallet, Wei
from protocol.wire import Dataset, Mode, ResultLink, Step


class TaskStage(StrEnum):
    """Where a task stands, in the words that iExec's own tools show."""

    RECEIVED = "RECEIVED"  #: the deal is known, initialize is on its way
    INITIALIZED = "INITIALIZED"  #: on chain, nobody works on it yet
    RUNNING = "RUNNING"  #: at least one worker has it
    CONSENSUS_REACHED = "CONSENSUS_REACHED"  #: the votes suffice, the winners are asked to reveal
    AT_LEAST_ONE_REVEALED = "AT_LEAST_ONE_REVEALED"
    RESULT_UPLOADED = "RESULT_UPLOADED"  #: revealed and the result is stored
    FINALIZING = "FINALIZING"  #: finalize was handed to the lane
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class ReplicateState(StrEnum):
    """How far a replicate is, by its worker's reports or their absence."""

    ASSIGNED = "ASSIGNED"
    STARTED = "STARTED"
    COMPUTED = "COMPUTED"
    FAILED = "FAILED"
    LOST = "LOST"
    ABORTED = "ABORTED"


class Outcome(StrEnum):
    """What the end of a replicate says about its worker."""

    NEUTRAL = "NEUTRAL"
    #: It failed by itself, or did not report in time.
    FAILED = "FAILED"
    #: It said that the task or its app is at fault, or that it has too little memory for it.
    BLAMED = "BLAMED"
    #: The task was completed with its vote.
    VOTED = "VOTED"
    #: The task was completed with its result alone, and it was paid.
    PAID = "PAID"
    #: The task was completed with another result than that which it voted for.
    WRONG = "WRONG"
    #: It won the vote, was asked to reveal and did not, so that all had to wait; or it was asked for the result and did
    #: not bring it, and the task failed and the pool lost its stake.
    WITHHELD = "WITHHELD"
    #: It said that it had a result and did not vote in time, or was asked for the result and another winner brought it.
    LATE = "LATE"

    @property
    def apart_from_slot(self) -> bool:
        """Whether this outcome becomes known at another time than when the worker gets its slot back."""
        return self in {Outcome.VOTED, Outcome.PAID, Outcome.WITHHELD, Outcome.LATE, Outcome.WRONG}


class Standing(IntEnum):
    """What a worker has staked or earned on chain. Nothing else counts, since wallets and claims cost nothing."""

    NEWCOMER = 0  #: nothing: like any wallet made a moment ago
    STAKED = 1  #: stake of its own, which costs nothing while it does not vote
    PROVEN = 2  #: votes of its were right, or results of its were paid


#: Seconds by which the clocks of processes that share the records may differ: a moment that is further ahead was
#: written by a clock that was wrong.
CLOCKS_APART = 15.0
#: Slots that a worker may use before anything of its was right on chain, and slots more with each time that it was: a
#: wallet is free, so its claims about its machine are believed step by step. 16 slots are earned by 7 tasks.
NEWCOMER_SLOTS, SLOTS_PER_SUCCESS = 2, 2
#: Workers never right on chain yet that may fail a task or keep silent before only proven ones are asked for it.
MOST_NEWCOMERS = 20
#: Maximum computed but uncontributed results per slot: a worker that reports COMPUTED and never votes gets no more.
MOST_PLEDGED = 2
#: States from which a contribution may still be expected.
LIVE = frozenset({ReplicateState.ASSIGNED, ReplicateState.STARTED, ReplicateState.COMPUTED})


@dataclass(frozen=True, slots=True)
class Replicate:
    """One worker's attempt at one task. Times are Unix seconds."""

    wallet: Wallet
    mode: Mode
    #: Vote weight when assigned (protocol.poco.weights).
    weight: int
    assigned_at: float
    state: ReplicateState = ReplicateState.ASSIGNED
    #: When the compute segment was last published.
    published_at: float = 0.0
    #: How often it was published again.
    resends: int = 0
    #: First report of each step.
    steps: Mapping[Step, float] = field(default_factory=dict)
    #: Whether it still takes one of its worker's slots.
    holds_slot: bool = True
    #: Whether its worker's stake is still promised to its vote: computed, and no vote seen yet.
    pledged: bool = False
    cause: str | None = None
    exit_code: int | None = None
    reveal_asked_at: float | None = None
    upload_asked_at: float | None = None
    #: The stored result, checked against `digest` by the API before it gets here.
    link: ResultLink | None = None
    digest: Hash32 | None = None
    #: `callback-data` of the result as `0x` hex, for deals with a callback.
    callback_data: str | None = None
    #: When the body of its result began to come, if that is too large to be here before another winner is asked.
    upload_begun_at: float | None = None
    #: Where its machine works alone: when the pool last had its result coming in, if that takes long.
    upload_coming_at: float | None = None
    #: When the pool itself first could not store its result: IPFS did not take it, or the pool's disk was full.
    not_stored_at: float | None = None
    #: Its worker's standing when assigned. Replicates stored before there was such a field count in full.
    standing: Standing = Standing.PROVEN
    #: What its delay and the task's end were counted as for its worker, stored before it is counted there. Each counts
    #: once at most, also where a reorg takes the end back and returns it; after a crash between the two, not at all.
    counted: tuple[Outcome, ...] = ()

    @property
    def live(self) -> bool:
        """Whether a contribution may still come from it."""
        return self.state in LIVE

    @property
    def holds(self) -> bool:
        """Whether a slot or stake of its worker is still reserved for it."""
        return self.holds_slot or self.pledged


@dataclass(frozen=True, slots=True)
class Submission:
    """A transaction that was handed to the lane: the newest try of its method."""

    generation: int
    #: Unix seconds.
    at: float


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task: the deal's terms, its replicates, what was submitted and asked. Changed by conditional updates only."""

    task_id: TaskId
    deal_id: DealId
    index: int
    requester: Wallet
    #: At least 1; how many the votes must convince (PoCo trust).
    trust: int
    tag: Hash32
    category_seconds: int
    contribution_deadline: Timestamp
    final_deadline: Timestamp
    #: Stake a worker locks when it contributes.
    worker_stake: NRlc
    callback: Contract
    matched_block: BlockNumber
    #: Block time of the match.
    matched_at: Timestamp
    stage: TaskStage = TaskStage.RECEIVED
    #: False once it ended; a reorg can open it again.
    open: bool = True
    #: The deal's block was reorganised away and has not come back.
    orphaned: bool = False
    #: A vote on it was rejected. The contract takes a result without a vote only from the very first that contributes.
    reopened: bool = False
    #: Replicates to assign now, if newcomers take them.
    wants: int = 0
    #: Weight that the leading result will have once all who still compute have voted for it, and that of all others.
    leading: int = 0
    others: int = 0
    #: How many of those it wants may be workers never right on chain.
    newcomers: int = MOST_NEWCOMERS
    #: Only workers never right on chain have it, for too long: a proven one with nothing else to do gets it too.
    backup: bool = False
    replicates: tuple[Replicate, ...] = ()
    #: Lane method → its newest try.
    sent: Mapping[str, Submission] = field(default_factory=dict)
    #: How many intents failed, by the names of `pipeline.domain.tries`.
    failed: Mapping[str, int] = field(default_factory=dict)
    initialized_block: BlockNumber | None = None
    consensus_block: BlockNumber | None = None
    finalized_block: BlockNumber | None = None
    #: For an enclave that the pool or no machine that is there can serve: not initialized until one can.
    unserved: bool = False
    #: Whose signature in the enclave its result needs, as the secret service told; zero: none, or not told yet.
    challenge: Contract = ZERO_ADDRESS
    #: How often the secret service was asked for it, and when last, Unix seconds.
    challenge_tries: int = 0
    challenge_asked_at: float = 0.0
    #: The `challenge_asked_at` that the service answered last with a challenge.
    challenge_told_at: float = 0.0
    #: `results` on chain, as text.
    results: str | None = None
    #: Why it failed or what it waits for.
    why: str | None = None
    #: Last change that an event, a report or a decision made.
    changed_at: float = 0.0
    #: Chain status, votes and reveals when last read, and when they or a report last changed: our own requests do
    #: not change it.
    progress: tuple[int, int, int] = (0, 0, 0)
    heard_at: float = 0.0
    #: Not matched before: more urgent ones were waiting and nobody could take it.
    not_before: float = 0.0
    #: When the sweep visits it next.
    next_visit: float = 0.0
    version: int = 0

    def replicate(self, wallet: Wallet) -> Replicate | None:
        """That worker's attempt, if it has one."""
        return next((item for item in self.replicates if item.wallet == wallet), None)

    @property
    def mode(self) -> Mode:
        """How results reach the chain: SOLO (`contributeAndFinalize`) for trust 1, by VOTE otherwise and once it was
        reopened.
        """
        return Mode.SOLO if self.trust <= 1 and not self.reopened else Mode.VOTE

    @property
    def has_callback(self) -> bool:
        """Whether the result is also handed to a contract."""
        return self.callback != ZERO_ADDRESS


@dataclass(frozen=True, slots=True)
class DealRecord:
    """A deal with what its app, dataset and category say: all that an assignment needs."""

    deal_id: DealId
    app: Contract
    #: On-chain multiaddr text of the app image.
    image: str
    image_checksum: Hash32
    dataset: Dataset | None
    workerpool: Contract
    requester: Wallet
    beneficiary: Wallet
    callback: Contract
    params: str
    trust: int
    tag: Hash32
    category_seconds: int
    start_time: Timestamp
    bot_first: int
    bot_size: int
    worker_stake: NRlc
    contribution_deadline: Timestamp
    final_deadline: Timestamp
    matched_block: BlockNumber


@dataclass(frozen=True, slots=True)
class Reservation:
    """One slot of a worker in use."""

    task_id: TaskId
    since: float
    #: Stake that the contribution will lock; 0 when alone.
    stake: NRlc


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What the chain says of a worker's wallet."""

    #: Vote weight (protocol.poco.weights).
    weight: int
    #: Free stake in the hub.
    stake: NRlc
    #: Balance of the native token.
    coins: Wei
    #: Whether the balance pays the gas of a task.
    funded: bool
    #: PoCo score: votes that were right, less a third at each that was wrong.
    score: int = 0

    @property
    def balance(self) -> Wei:
        """The wallet's balance of the native token, in wei."""
        return self.coins

    @property
    def successes(self) -> int:
        """Right votes, at least: the score, or the score that the weight implies if that is higher."""
        return max(self.score, score_of(self.weight))


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One enrolled worker machine. Times are Unix seconds."""

    wallet: Wallet
    name: str
    version: str
    slots: int
    cpus: int
    memory_bytes: int
    #: Tag bits it can serve.
    tag: Hash32
    enrolled_at: float
    #: Last ping or login.
    seen_at: float
    facts: ChainFacts
    #: When `facts` were read; 0: never. `assign` reads them again when they are too old.
    checked_at: float
    held: tuple[Reservation, ...] = ()
    #: Computed, vote not seen yet: the slot is free, the stake is not.
    pledged: tuple[Reservation, ...] = ()
    #: Replicates failed since a task was last completed with its vote.
    failures: int = 0
    #: Replicates since then whose worker reported that the task or its app is at fault.
    blamed: int = 0
    #: Tasks that it finalized alone and was paid for: they leave no score.
    solos: int = 0
    #: It gets no new tasks before.
    rest_until: float = 0.0
    banned: bool = False
    #: Most slots that the pool's operator lets it use (`sluice worker slots`); None: no such limit, 0: it is drained.
    operator_slots: int | None = None
    #: Silent for too long; cleared by its next ping.
    lost: bool = False
    #: It has signed off; cleared by its next sign-in or ping.
    away: bool = False
    #: When RabbitMQ said that it is not connected; None: it is, or was not said to be cut off since its sign-in.
    disconnected_at: float | None = None
    #: Which installation signed in last; None if it did not say.
    machine: str | None = None
    #: Where it signed in from last: an IPv4 address, or the /64 of an IPv6 one.
    address: str = ""
    #: Tokens issued before are refused.
    not_before: float = 0.0

    @property
    def free(self) -> int:
        """Slots not in use, of those it may use; none for one with the maximum of uncontributed results."""
        return max(0, min(self.usable - len(self.held), MOST_PLEDGED * self.usable - len(self.pledged)))

    @property
    def successes(self) -> int:
        """How many times it was right on chain: right votes, or tasks it finalized alone, whichever is more."""
        return max(self.facts.successes, self.solos)

    @property
    def usable(self) -> int:
        """Slots that it may use: the least of those it offers, those it has earned and the operator's limit."""
        allowed = self.slots if self.operator_slots is None else min(self.slots, self.operator_slots)
        return min(allowed, NEWCOMER_SLOTS + SLOTS_PER_SUCCESS * self.successes)

    @property
    def drained(self) -> bool:
        """Whether the pool's operator lets it finish what it has and gives it nothing new."""
        return self.operator_slots == 0

    def standing(self, stake: NRlc) -> Standing:
        """The standing (newcomer, staked or proven) of this worker for a task that locks `stake` nRLC."""
        if self.successes:
            return Standing.PROVEN
        return Standing.STAKED if self.facts.stake >= max(stake, 1) else Standing.NEWCOMER


@dataclass(frozen=True, slots=True)
class ComputeLog:
    """What an app printed on one worker; tails only (pipeline.domain.kept_output)."""

    task_id: TaskId
    wallet: Wallet
    stdout: str
    stderr: str
