"""The lane itself: one short run, recover → confirm → send, then return until the next wake-up.

wake-up (message, new head, sweep)
   └─► lease ─► snapshot ─► confirm ─► repair ─► choose ─► claim ─► broadcast ─► lease back
                1-2 RPC     0-1 RPC    0-1 RPC   0-n RPC   1 write  1 RPC
                batches     batch      call      batches            batch
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter

import structlog

from chain.lane.model.intent import Intent, IntentState, LaneId
from chain.lane.model.nonce import IN_A_BLOCK, NonceRecord, NonceState
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.confirm import Confirmed, confirm
from chain.lane.phases.context import LaneMemory, LeasedRun, RunContext
from chain.lane.phases.proof import receipts
from chain.lane.phases.repair import repair
from chain.lane.phases.send import afford, broadcast, choose, claim
from chain.lane.phases.snapshot import ChainSnapshot, take_snapshot
from chain.lane.rules.encoding import Encoder
from chain.lane.rules.gas import allow
from chain.lane.rules.readiness import Readiness
from chain.lane.rules.waits import CONTRADICTION, report_contradiction, report_silence, report_waiting
from chain.lane.signer import Signer
from chain.lane.store.lease import new_holder
from chain.lane.store.port import LaneStore
from chain.rpc.announced import AnnouncedHead
from chain.rpc.answers import Known
from chain.rpc.client import JsonRpc
from config.metrics import LANE_FAILED, LANE_HALTED, LANE_IN_FLIGHT, LANE_NONCE_GAP
from protocol.errors import ForeignNonce, LaneFull, LeaseLost, RpcUnavailable, SluiceError
from protocol.types import Nonce

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one run did and found."""

    #: Intents that ended in it: FINAL, DONE or FAILED.
    ended: tuple[Intent, ...] = ()
    #: Keys of intents that a block now carries.
    mined: tuple[str, ...] = ()
    #: Intents whose transaction was given to the node for the first time.
    sent: tuple[Intent, ...] = ()
    #: Run again at once, without waiting for a head.
    wake_again: bool = False
    #: Another process holds this wallet now; it does the work.
    busy: bool = False
    #: Why the lane is halted until an operator decides.
    halted: str | None = None
    #: What did not answer, or why the records do not allow a run; the next wake-up tries again.
    trouble: str | None = None


class Lane:
    """The transactions of one wallet on one chain. Make one per process; runs of several exclude each other."""

    def __init__(
        self,
        chain_id: int,
        store: LaneStore,
        rpc: JsonRpc,
        signer: Signer,
        readiness: Readiness,
        encoder: Encoder,
        policy: LanePolicy | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        holder: str | None = None,
        worth: Callable[[Intent], int] = attrgetter("worth"),
        pending_readiness: Readiness | None = None,
    ) -> None:
        self._context = RunContext(
            lane=LaneId(chain_id, signer.wallet),
            store=store,
            rpc=rpc,
            signer=signer,
            readiness=readiness,
            encoder=encoder,
            policy=policy or LanePolicy(),
            clock=clock,
            monotonic=monotonic,
            worth=worth,
            pending_readiness=pending_readiness,
        )
        self._memory = LaneMemory()
        self._holder = holder or new_holder()

    @property
    def id(self) -> LaneId:
        """Chain id and wallet of this lane."""
        return self._context.lane

    @property
    def context(self) -> RunContext:
        """The store, node and settings of this lane, for `chain.lane.admin`."""
        return self._context

    @property
    def holder(self) -> str:
        """The name under which this process takes the lane's lease."""
        return self._holder

    def submit(self, intents: Sequence[Intent]) -> int:
        """Store intents durably; the number of new ones.

        Intents that exist already are left as they are. Raises LaneFull.
        """
        context = self._context
        if not intents:
            return 0
        queued = context.store.count(context.lane, (IntentState.QUEUED,))
        if queued + len(intents) > context.policy.max_queued:
            raise LaneFull(wallet=context.lane.wallet, queued=queued)
        return context.store.add(intents)

    def intents(self, keys: Sequence[str]) -> list[Intent]:
        """The intents of these keys, with their present states; unknown keys are left out."""
        return self._context.store.intents(keys)

    def run(self, *, same_head: bool = False, announced: AnnouncedHead | None = None) -> RunReport:
        """Confirm, repair and send what is due; called at each new head and after `submit`.

        Returns early if there is nothing to do. Errors of the node are in the report; those of the database are raised.
        `same_head`: no head came since the last run, so that what it saw of the chain is used again. `announced`: the
        head that came since the last run, so that the node is not asked for it.
        """
        context = self._context
        # A run that fails leaves nothing to be used again.
        before, self._memory.snapshot = self._memory.snapshot if same_head else None, None
        try:
            if not context.store.busy(context.lane) and not self._last_final_undone(announced):
                return RunReport()
        except RpcUnavailable as error:
            self._warn("No answer from the node.", "lane_rpc_unavailable", error)
            return RunReport(trouble=str(error))
        started = context.monotonic()
        lease = context.store.take_lease(context.lane, self._holder, context.policy.lease)
        if lease is None:
            return RunReport(busy=True)
        LANE_HALTED.labels(context.lane.wallet).set(lease.halted is not None)
        run = LeasedRun(context, lease, started)
        try:
            if lease.halted is not None and not self._end_wrong_halt(run):
                log.error("The lane stands still.", action="lane_halted", wallet=context.lane.wallet, why=lease.halted)
                return RunReport(halted=lease.halted)
            return self._run_phases(run, before, announced)
        except RpcUnavailable as error:
            self._warn("No answer from the node.", "lane_rpc_unavailable", error)
            if lease.halted is None:
                with suppress(LeaseLost):
                    report_silence(run, self._memory, str(error))
            return RunReport(self._ended(run), halted=lease.halted, trouble=str(error))
        except LeaseLost as error:
            return self._break_off(run, error)
        except ForeignNonce as error:
            LANE_HALTED.labels(context.lane.wallet).set(1)
            return RunReport(self._ended(run), halted=str(error))
        finally:
            context.store.give_back(lease)

    def _break_off(self, run: LeasedRun, error: LeaseLost) -> RunReport:
        """Report a write that conflicted with what is stored: another run's, unless the lease still is this run's.

        Then the records contradict each other, say after a restore: to run again at once would not help.
        """
        context = self._context
        try:
            context.store.renew_lease(run.lease, context.policy.lease)
            report_contradiction(run, self._memory)
        except LeaseLost:
            self._warn("Another run took over.", "lane_lease_lost", error)
            return RunReport(self._ended(run), busy=True, wake_again=True)
        return RunReport(self._ended(run), trouble=CONTRADICTION)

    def _ended(self, run: LeasedRun) -> tuple[Intent, ...]:
        """The intents that ended in this run so far."""
        return tuple(self._context.store.intents(run.ended)) if run.ended else ()

    def _end_wrong_halt(self, run: LeasedRun) -> bool:
        """End the halt, and return True, if a receipt shows that one of the lane's own transactions spent the nonce."""
        context, wallet = self._context, self.id.wallet
        seen = take_snapshot(context.rpc, wallet, None)
        spent = [record for record in context.store.records(self.id, (NonceState.OPEN,)) if record.nonce < seen.count]
        found = receipts(context.rpc, spent)
        ours = [record.nonce for record in spent if isinstance(found[record.nonce], Known)]
        if not ours:
            return False
        context.store.halt(self.id, None, run.lease)
        log.warning(
            "The lane goes on by itself: its own transactions have receipts.",
            action="lane_halt_ended",
            wallet=wallet,
            nonces=ours,
            why=run.lease.halted,
        )
        LANE_HALTED.labels(wallet).set(0)
        return True

    def _newest_in_block(self) -> NonceRecord | None:
        """The newest record that is in a block: while that block stands, so do all before it."""
        return next(iter(self._context.store.newest(self.id, IN_A_BLOCK, 1, None)), None)

    def _last_final_undone(self, announced: AnnouncedHead | None) -> bool:
        """Whether a reorg removed the block of the newest record, although it was FINAL. One batch of requests."""
        newest = self._newest_in_block()
        if newest is None:
            return False
        seen = take_snapshot(self._context.rpc, self.id.wallet, newest, self._memory.standing, announced)
        self._memory.standing = seen.standing
        return seen.contradicts(newest)

    def _warn(self, sentence: str, action: str, error: SluiceError) -> None:
        """Log an error that ends this run and does no harm: the next run goes on."""
        log.warning(sentence, action=action, wallet=self._context.lane.wallet, why=str(error))

    def _run_phases(self, run: LeasedRun, before: ChainSnapshot | None, announced: AnnouncedHead | None) -> RunReport:
        """The phases of one run under its lease: snapshot, confirm, repair, choose, claim, broadcast.

        `before`: what the last run saw, if no head came since. `announced`: the one that came.
        """
        context, memory = self._context, self._memory
        newest = self._newest_in_block()
        seen = before and before.again(newest)
        if seen is None:
            seen = take_snapshot(context.rpc, context.lane.wallet, newest, memory.standing, announced)
        memory.standing = seen.standing
        memory.note_account_nonce(seen.count, seen.head)
        confirmed = confirm(run, seen, newest, memory)
        highest = context.store.highest_nonce(context.lane)
        if context.policy.dry_run:
            return self._rehearse(run, seen, confirmed)
        repairs = repair(run, seen, confirmed.open, highest, memory)
        open_records = list(repairs.open.values())
        # While a gap waits to be filled, every further nonce would queue up behind it.
        chosen = choose(context, seen, open_records, confirmed.spent, memory) if not memory.gaps else None
        outbox = repairs.outbox
        sent: list[Intent] = []
        if chosen is not None:
            if chosen.moves:
                context.store.move(run.lease, chosen.moves, ())
                run.ended += chosen.ended
                for (method, reason), number in chosen.failed.items():
                    LANE_FAILED.labels(method, reason).inc(number)
            # A group that was cut may exceed the capacity: its other parts wait for the next run.
            allowed = allow(context, memory, chosen.groups, seen.block_gas)[: chosen.capacity]
            groups = afford(context, seen, open_records, allowed, memory)
            if groups:
                fresh = claim(run, seen, groups, self._next_nonce(seen, highest), chosen.early)
                sent = [intent for intents, _ in groups for intent in intents]
                outbox = [*outbox, *fresh]
                open_records += fresh
        look_again = broadcast(run, seen, outbox, memory) or (chosen is not None and chosen.more)
        LANE_IN_FLIGHT.labels(context.lane.wallet).set(len(open_records))
        LANE_NONCE_GAP.labels(context.lane.wallet).set(len(memory.gaps))
        report_waiting(run, seen, memory)
        memory.snapshot = seen
        return RunReport(
            ended=self._ended(run),
            mined=tuple(confirmed.mined),
            sent=tuple(sent),
            wake_again=look_again,
        )

    def _next_nonce(self, seen: ChainSnapshot, highest: Nonce | None) -> Nonce:
        """The nonce to claim next.

        Nonces above the lane's own that are spent do no harm, but they show that the key is used elsewhere as well.
        """
        if highest is None or seen.count <= highest + 1:
            return max(seen.count, Nonce(0 if highest is None else highest + 1))
        log.warning(
            "The wallet's key is used outside; nonces that were not ours are left out.",
            action="lane_key_shared",
            wallet=self.id.wallet,
            first=highest + 1,
            nonces=seen.count - highest - 1,
        )
        return seen.count

    def _rehearse(self, run: LeasedRun, seen: ChainSnapshot, confirmed: Confirmed) -> RunReport:
        """In a dry run, log once for each transaction what would be sent, in place of repairing and sending."""
        context, logged = self._context, self._memory.dry_run_logged
        chosen = choose(context, seen, confirmed.open, confirmed.spent, self._memory)
        for intents, call in afford(context, seen, confirmed.open, chosen.groups, self._memory):
            keys = [intent.key for intent in intents]
            if not logged.issuperset(keys):
                log.info("Would send.", action="lane_dry_run", intents=keys, to=call.to, gas=call.gas, value=call.value)
                logged.update(keys)
        return RunReport(ended=self._ended(run), mined=tuple(confirmed.mined))
