"""The demo's deals on a running pool: buy, follow on chain, fetch results, count the money."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from chain.rpc.client import Rpc
from ops.demo import plan
from ops.demo.plan import Purchase
from ops.demo.report import DealStory
from ops.demo.screen import Progress
from ops.demo.timeline import timeline
from ops.market import results, rewards
from ops.market.match import Matched
from ops.poco.sender import DirectSender
from ops.pool.follow import OVER, Follower
from ops.pool.local import LocalPool
from ops.pool.on_chain import XS_SECONDS
from ops.pool.site import Chain
from protocol.errors import NotReady
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import BlockNumber, TaskId, Wallet

#: Seconds for all deals of one round to end: some blocks, and a slow machine.
WAIT_SECONDS = 180.0
#: File of the result that the demo's app writes.
RESULT_FILE = "result.txt"

Bought = tuple[Purchase, Matched]


class DemoStage:
    """One pool, one requester, any number of rounds of deals."""

    def __init__(self, pool: LocalPool, chain: Chain, rpc: Rpc, gateway: str) -> None:
        self._pool, self._chain, self._rpc, self._gateway = pool, chain, rpc, gateway
        self._buyer = DirectSender(pool.on_chain.requester, rpc, chain.chain_id)
        head = BlockNumber(int(rpc.call("eth_blockNumber"), 16))
        self._follower = Follower(rpc, chain.ws_url, chain.addresses.hub, chain.block_time, next_block=head)

    def round(self, purchases: Sequence[Purchase], progress: Progress) -> list[DealStory]:
        """Buy all of `purchases` in one block and follow them to their end. Raises NotReady if that never comes."""
        bought = list(zip(purchases, plan.buy(self._buyer, self._pool.on_chain, purchases), strict=True))
        self._follower.categories.update({task: XS_SECONDS for _, deal in bought for task in deal.tasks})
        progress.add(bought)
        stop = threading.Event()
        timer = threading.Timer(WAIT_SECONDS, stop.set)
        timer.start()
        try:
            for views in self._follower.until_over(stop):
                progress.show(views, self._follower.next_block - 1)
        finally:
            timer.cancel()
        views = self._follower.views()
        stuck = [task for _, deal in bought for task in deal.tasks if views[task].status not in OVER]
        if stuck:
            log = self._pool.programs["scheduler"].log
            raise NotReady(part=f"Task {stuck[0]}", seconds=WAIT_SECONDS, log=log, why="It has not ended on chain.")
        return [self._collect_story(*pair) for pair in bought]

    def names(self) -> dict[Wallet, str]:
        """Names of the demo's wallets: workers, scheduler and requester."""
        on_chain = self._pool.on_chain
        machines = {wallet.key.wallet: f"worker-{n}" for n, wallet in enumerate(on_chain.workers, start=1)}
        return machines | {on_chain.scheduler.key.wallet: "scheduler", on_chain.requester.wallet: "requester"}

    def _collect_story(self, purchase: Purchase, matched: Matched) -> DealStory:
        """All that the report says of one finished deal: time lines, views, results, gains."""
        views = self._follower.views()
        lines = {
            task: timeline(task, matched.block_number, self._follower.seen.get(task, ())) for task in matched.tasks
        }
        hub = self._chain.addresses.hub
        by_task = rewards.rewards(self._rpc, hub, matched.tasks, matched.block_number)
        return DealStory(
            purchase=purchase,
            matched=matched,
            lines=lines,
            views={task: views[task] for task in matched.tasks},
            results={
                task: self._fetch_result(purchase, views[task].results) for task in _completed_tasks(matched, views)
            },
            gains=rewards.total(by_task),
        )

    def _fetch_result(self, purchase: Purchase, link: str) -> str:
        """The text of a task's result file, fetched through the IPFS gateway, and decrypted if need be."""
        files = results.fetch(self._gateway, link).files
        if purchase.confidential:
            files = results.open_encrypted(files, purchase.confidential.result_key)
        return files.get(RESULT_FILE, b"").decode(errors="replace")


def _completed_tasks(matched: Matched, views: Mapping[TaskId, ChainView]) -> list[TaskId]:
    """The deal's tasks that are COMPLETED on chain."""
    return [task for task in matched.tasks if views[task].status is TaskStatus.COMPLETED]
