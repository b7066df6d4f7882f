"""A pending state that cannot be known (SLUICE_STATE=pending): nothing goes out early, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chain.lane.model.intent import Intent, IntentState
from chain.lane.model.policy import LanePolicy
from chain.lane.rules.early import UNKNOWN_PAUSE
from chain.lane.rules.order import Order
from chain.lane.rules.readiness import Moment, ReadinessVerdict
from protocol.errors import RpcUnavailable, SluiceError
from tests.unit.chain.lane.rig import Rig


class Unknown:
    """A pending state about which each question fails."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    "error",
    [RpcUnavailable(what="a node", why="HTTP 403"), KeyError("to"), ValueError("no status 9"), IndexError("an offset")],
    ids=lambda error: type(error).__name__,
)
def test_a_question_about_the_pending_state_that_fails_holds_up_no_reveal(error: SluiceError | Exception) -> None:
    rig = Rig(LanePolicy(order=Order.BY_TIP))
    pending = Unknown(error)
    rig.pending = pending
    rig.lane = rig.new_lane()
    rig.chain.blocked.add("early")
    (waits,) = rig.submit("contribute", "early")
    (goes,) = rig.submit("reveal", "ready")
    report = rig.run()
    assert (report.trouble, pending.asked > 0) == (None, True)
    states = {intent.key: intent.state for intent in rig.lane.intents([waits, goes])}
    assert states == {waits: IntentState.QUEUED, goes: IntentState.SENT}
    asked = pending.asked
    rig.run()
    assert pending.asked == asked, "a node that hangs costs its time-out once in a while, and not in each run"
    for _ in range(UNKNOWN_PAUSE):
        rig.chain.mine()
    rig.run()
    assert pending.asked > asked
