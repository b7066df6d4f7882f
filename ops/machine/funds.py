"""`sluice worker deposit | withdraw`: moves RLC between the machine's wallet and the hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.lane.rules.poco import poco_lane
from chain.lane.run import Lane
from chain.lane.store.sqlite import SqliteStore
from chain.lane.transfer import Direction, Transfer
from chain.rpc.pool import connect
from config.settings import Settings
from protocol.amounts import rlc
from protocol.errors import BadSetting, NotReady, TransferDropped
from protocol.types import Contract, NRlc
from workers.data.layout import Layout, layout_of
from workers.money import pins, transfers
from workers.money.ledger import open_ledger
from workers.money.transfers import Made, Wish
from workers.pool.saved_config import completed_by_pool, policy_of
from workers.pool.settings import check_scheduler


@dataclass(frozen=True, slots=True)
class Moved:
    """What a command did. `resumed`: an earlier command had begun it, and nothing was sent beside."""

    made: Made
    resumed: bool
    #: nRLC of the wallet's account in the hub afterwards.
    free: NRlc
    locked: NRlc


@dataclass(frozen=True, slots=True)
class Funds:
    """What the commands deposit and withdraw work with: one wallet, its lane and its hub. One command at a time."""

    settings: Settings
    layout: Layout
    lane: Lane
    hub: Hub
    #: Whether what is sent binds the machine to this chain, hub and workerpool: a pool named them.
    pinned: bool = False

    @property
    def place(self) -> str:
        """Where the money goes, for the operator who confirms it."""
        return f"chain {self.lane.id.chain_id}, hub {self.hub.address}"

    @property
    def pending(self) -> Wish | None:
        """The transfer that an earlier command left unfinished; None if there is none. Raises RefusedHere."""
        return transfers.pending(self.layout)

    def plan(self, direction: Direction, amount: NRlc) -> Transfer:
        """Check that the wallet can pay for a transfer, and tell its highest cost. Raises BadInput, RpcUnavailable."""
        promised = NRlc(0)
        if self.layout.journal.exists():
            policy, wallet = self.lane.context.policy, self.lane.id.wallet
            with open_ledger(self.settings, policy, self.layout, wallet, self.hub) as ledger:
                if direction == "withdraw":
                    # What a task will lock is not known to be nothing.
                    ledger.note_stakes()
                promised = ledger.budget().locked
        return transfers.plan(self.lane, self.hub, direction, amount, promised)

    def begin(self, transfer: Transfer) -> Wish:
        """Store the transfer, so that it is made at most once; pin the machine to its chain, hub and workerpool."""
        if self.pinned:
            pins.keep(self.layout, self.settings)
        return transfers.begin(self.layout, transfer, self.lane.id.chain_id, time.time())

    def carry_out(self, wish: Wish, seconds: float, *, resumed: bool, told: Callable[[Moved], None]) -> None:
        """Make the transfer, hand the outcome to `told`, and only then delete the stored transfer.

        Raises NotReady if it is in no block after `seconds`, LaneError; TransferDropped, and then it is deleted too.
        """
        try:
            made = transfers.carry_out(self.layout, self.lane, wish, self.settings, seconds)
        except TransferDropped:
            transfers.finish(self.layout)
            raise
        if made is None:
            raise NotReady(
                part=f"The {wish.direction} of {rlc(wish.amount)} RLC",
                seconds=seconds,
                log="`sluice tx ls --worker`",
                why="It is sent, or waits in the lane for an hour at most. Run the same command again: it waits for"
                " this one and sends nothing twice.",
            )
        account = self.hub.account(self.lane.id.wallet)
        told(Moved(made, resumed, account.stake, account.locked))
        transfers.finish(self.layout)


@contextmanager
def funds(settings: Settings) -> Iterator[Funds]:
    """Open what the commands need, for one command at a time. Raises BadSetting, BadKeystore, WrongChain, RefusedHere,
    RpcUnavailable.
    """
    if settings.lane_dry_run:
        raise BadSetting(
            name="SLUICE_LANE_DRY_RUN", why="with it nothing is ever sent", fix="Unset it for this command."
        )
    key = load_key(settings)
    own, pool = completed_by_pool(settings, key.wallet)
    layout = layout_of(own.home, key.wallet)
    layout.make()
    with closing(connect(own)) as rpc, closing(SqliteStore(layout.lane)) as store, transfers.alone(layout):
        hub = Hub(rpc, Contract(str(own.hub)))
        hub.check_chain(own)
        if pool is not None:
            # As at a machine's start: before the first one nothing else says that this pool is what it claims.
            check_scheduler(hub, pool)
        yield Funds(own, layout, poco_lane(own, rpc, key, store, policy_of(own)), hub, pinned=pool is not None)
