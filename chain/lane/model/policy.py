"""Every number the lane goes by, in one frozen object."""

from __future__ import annotations

from dataclasses import dataclass, field

from chain.lane.model.nonce import NO_WEI
from chain.lane.rules.fees import CEILING, GWEI, FeePolicy
from chain.lane.rules.order import Order, order_of
from chain.lane.rules.send_errors import Phrases, phrases_of
from config.early_steps import early_steps
from config.settings import Settings
from protocol.types import Wei


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """Limits and timeouts of a lane. Timeouts are counted in blocks, so that they fit fast and slow chains alike."""

    #: Open nonces at once: what geth guarantees an account.
    max_in_flight: int = 16
    #: Nonces claimed in one run: with a deep queue the first are on their way before the last are signed.
    burst: int = 1000
    #: Queued intents before `submit` refuses more.
    max_queued: int = 100_000
    #: Blocks on top of the one that mined an intent until it is FINAL.
    finality: int = 12
    #: Blocks that may pass without the lowest nonce until all open transactions are sent again. A node that has them
    #: answers "already known", which is cheap; one that lost them gets them back two blocks after it did.
    rebroadcast_after: int = 1
    #: Blocks it may miss until its price is raised.
    bump_after: int = 4
    #: Blocks that it may miss for no visible reason until it is replaced.
    stuck_after: int = 6
    #: Blocks after which an obstacle that the lane cannot repair is logged as an error.
    alarm_after: int = 10
    #: Seconds without the answers that a run needs, after which that is logged as an error; no blocks are seen then.
    silent_after: float = 60.0
    #: Most gas that one transaction may ask for: what EIP-7825 allows, 2 to the 24th.
    max_gas: int = 2**24
    #: Heads between noticing a gap and filling it.
    gap_looks: int = 1
    #: Releases from a nonce before an intent is given up.
    max_generations: int = 3
    #: Queued intents judged in one go: one RPC batch.
    window: int = 500
    #: Most queued intents read in one run, so that a run ends.
    scan: int = 10_000
    #: Seconds a lease lasts without renewal; a killed holder on another machine blocks the lane for this long.
    lease: float = 5.0
    #: Balance that stays in the wallet: below it no nonce is claimed.
    keep_balance: Wei = NO_WEI
    #: Most to spend on fees in 24 h; None: no limit. Holds new nonces back, not a bump of one that is open: a lane that
    #: may not finish what it began would spend its time, and its stake, instead.
    daily_cap: Wei | None = None
    #: Methods that the daily cap does not hold back, and that go first: they save what is locked already, or an
    #: operator asked for them. Where there are any, other calls also wait while the base fee is above the ceiling:
    #: sent, they would only stand in the way of these.
    uncapped: frozenset[str] = frozenset()
    #: The part of `max_in_flight` that only these methods may use: others that wait at too low a price never take the
    #: last nonces. Of 16, 4 are kept.
    kept_part: int = 4
    #: How the chain orders a block's transactions, where steps may go out behind others of their block; None: each
    #: waits until what it relies on is in a block.
    order: Order | None = None
    #: Decide and log, but claim and send nothing.
    dry_run: bool = False
    #: Words of refusals that come before the table's own.
    phrases: Phrases = ()
    fees: FeePolicy = field(default_factory=FeePolicy)

    @property
    def most_calls(self) -> int:
        """Open nonces up to which methods that a cap may hold back get another one."""
        return self.max_in_flight - (self.max_in_flight // self.kept_part if self.uncapped else 0)

    @classmethod
    def of(cls, settings: Settings) -> LanePolicy:
        """The policy the settings describe. Raises BadSetting."""
        fees = FeePolicy(
            name=settings.fee_policy,
            ceiling=CEILING if settings.max_fee_gwei is None else Wei(int(settings.max_fee_gwei * GWEI)),
            fixed=Wei(int(settings.fixed_fee_gwei * GWEI)),
        )
        return cls(
            max_in_flight=settings.lane_max_in_flight,
            max_queued=settings.lane_max_queued,
            finality=settings.finality_blocks,
            max_gas=settings.max_transaction_gas,
            keep_balance=Wei(settings.keep_balance_wei),
            daily_cap=None if settings.daily_spend_cap_wei is None else Wei(settings.daily_spend_cap_wei),
            order=order_of(settings.chain_id) if early_steps(settings) else None,
            dry_run=settings.lane_dry_run,
            phrases=phrases_of(settings.refusal_phrases),
            fees=fees,
        )
