"""Whether a machine would be given work, part by part, from what was found out about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from protocol.amounts import ether, gwei, rlc
from protocol.gas import gas_for_task
from protocol.types import NRlc, Wei
from workers.money import limits
from workers.money.limits import Budget, Caps
from workers.sandbox.images.images_refused import Obstacle, RefusedImage

#: Tasks whose gas a wallet should hold: with less it is empty within the hour on a busy pool.
TASKS_OF_GAS = 20
#: Free bytes below which images and results soon do not fit.
LEAST_DISK = 5 * 2**30
#: Seconds that a clock may be off: clocks that NTP keeps are right to some milliseconds, deadlines are minutes, and a
#: block's time may lie some seconds ahead.
CLOCK_SECONDS = 30.0
#: Seconds for which a registry's rate limit counts that does not say how long it lasts: while tasks want images from
#: there, it is met again.
RATE_LIMIT_SECONDS = 3600.0
#: The platform of most images of iExec apps that are made for one only.
USUAL_PLATFORM = "linux/amd64"
#: Most registries that one sentence names.
_NAMED = 3
#: Blocks by which a node's head may be old before the node counts as behind.
OLD_BLOCKS = 10.0

Numbers = Mapping[str, int | float | str | bool | None]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What was found of one part. Not `ok`: the machine gets no work, or soon none, until it is fixed."""

    part: str
    ok: bool
    #: In words, with what to do about it.
    says: str
    #: The same as numbers, for programs.
    numbers: Numbers = field(default_factory=dict)


def gas(balance: Wei, gas_price: int) -> CheckResult:
    """Whether the wallet can pay for transactions: with less than one task costs, the scheduler gives it none."""
    needs = gas_for_task(gas_price)
    numbers = {"has_wei": balance, "needs_wei": needs, "gas_price_wei": gas_price}
    has = f"{ether(balance)} of the native token for gas; one task costs up to {ether(needs)}"
    if balance < needs:
        return CheckResult("gas", False, f"{has}, so this wallet is given no task. Send some to it.", numbers)
    if balance < TASKS_OF_GAS * needs:
        return CheckResult("gas", True, f"{has}: soon empty, send more", numbers)
    return CheckResult("gas", True, has, numbers)


def stake(free: NRlc, locked: NRlc, least: NRlc | None) -> CheckResult:
    """Whether the wallet's RLC in the hub suffices for what the pool sells. `least`: PoolConfig.least_stake."""
    numbers = {"free_nrlc": free, "locked_nrlc": locked, "needs_nrlc": least}
    has = f"{rlc(free)} RLC free, {rlc(locked)} RLC locked in the hub"
    if least is None:
        only = "; enough for tasks of trust 1 only, votes lock stake" if free == 0 else ""
        return CheckResult("stake", True, f"{has}{only}", numbers)
    if free + locked < least:
        why = f"a vote on this pool's newest tasks locks {rlc(least)} RLC or more, so this wallet is given none of them"
        return CheckResult(
            "stake", False, f"{has}; {why}. Deposit RLC in the hub for this wallet: `sluice worker deposit`.", numbers
        )
    if least == 0:
        return CheckResult("stake", True, f"{has}; this pool has tasks of trust 1, which lock none", numbers)
    return CheckResult(
        "stake", True, f"{has}; a vote on this pool's newest tasks locks {rlc(least)} RLC or more", numbers
    )


def money(budget: Budget, caps: Caps, least: NRlc) -> CheckResult:
    """Whether the machine's own limits allow another task that locks `least`."""
    numbers: Numbers = {
        "spent_wei": budget.spent,
        "in_flight_wei": budget.in_flight,
        "day_cap_wei": caps.day,
        "price_cap_wei": caps.price,
        "locked_nrlc": budget.locked,
        "stake_cap_nrlc": caps.stake,
    }
    why = limits.why_no_task(budget, caps, least)
    if why is not None:
        says = f"{why}; this machine takes no new task until that is over, and still reveals its votes."
        return CheckResult("money", False, says, numbers)
    return CheckResult("money", True, money_words(budget, caps), numbers)


def money_words(budget: Budget, caps: Caps) -> str:
    """What is spent and risked, against the limits."""
    risk = "the deposit" if caps.stake is None else f"{rlc(caps.stake)} RLC"
    return (
        f"{ether(budget.spent)} of {ether(caps.day)} spent on gas in 24 hours,"
        f" up to {ether(budget.in_flight)} under way; at most {gwei(caps.price)} gwei;"
        f" tasks lock {rlc(budget.locked)} RLC of {risk}"
    )


def disk(free: int, folder: str) -> CheckResult:
    """Whether `free` bytes at `folder` are enough for images and results (LEAST_DISK)."""
    numbers = {"free_bytes": free, "needs_bytes": LEAST_DISK}
    has = f"{gib(free)} GiB free at {folder}"
    if free >= LEAST_DISK:
        return CheckResult("disk", True, has, numbers)
    fix = "Free some, e.g. with `docker system prune`, or name a folder on another disk with SLUICE_HOME."
    return CheckResult("disk", False, f"{has}, {gib(LEAST_DISK)} GiB are needed for images and results. {fix}", numbers)


def images(refused: Sequence[RefusedImage], served: int, platform: str, now: float) -> CheckResult:
    """Whether registries give this machine images, and apps have one for its platform.

    `refused`: what the machine could not have in the last day; `served`: apps that it had an image for in that time;
    `platform`: the engine's, as `linux/amd64`. Apps for other platforms alone make no machine unfit while it can serve
    as many: whoever sells an app says what it is made for.
    """
    foreign = [each for each in refused if each.obstacle is Obstacle.PLATFORM]
    limited = [each for each in refused if each.obstacle is Obstacle.RATE_LIMIT and _limit_ends(each) > now]
    apps, unusual = len(foreign) + served, platform != USUAL_PLATFORM
    numbers: Numbers = {
        "platform": platform,
        "apps": apps,
        "other_platform": len(foreign),
        "rate_limited": len(limited),
    }
    said = []
    if limited:
        said.append(_rate_limit_words(limited))
    if foreign:
        said.append(
            f"{len(foreign)} of {apps} apps of the last 24 hours have no image for this machine's {platform}, so their"
            f" tasks are declined (the last one is {foreign[0].image}: {foreign[0].why}). A machine of that platform"
            " can serve them: name its engine with SLUICE_DOCKER_HOST"
        )
    elif unusual and not served:
        said.append(
            f"this machine is {platform}, and most apps have an image for {USUAL_PLATFORM} only; their tasks are"
            " declined. Name an engine of that platform with SLUICE_DOCKER_HOST, or see here, later, what share"
            " of the apps this machine can serve"
        )
    few = len(foreign) >= max(served, 1) or (unusual and not served)
    if not said:
        return CheckResult("images", True, f"for {platform}; {served} apps in the last 24 hours, none refused", numbers)
    return CheckResult("images", not (limited or few), f"{'; '.join(said)}.", numbers)


def _limit_ends(limit: RefusedImage) -> float:
    """When a registry's rate limit ends."""
    return limit.met_at + RATE_LIMIT_SECONDS if limit.until is None else limit.until


def _rate_limit_words(limits: Sequence[RefusedImage]) -> str:
    """What is to be done about rate limits, the newest first."""
    registries = list(dict.fromkeys(each.registry for each in limits))
    names = ", ".join(registries[:_NAMED]) + (" and others" if len(registries) > _NAMED else "")
    until = max((each.until for each in limits if each.until is not None), default=None)
    end = "it passes (the registry does not say when)" if until is None else _moment(until)
    return (
        f"the rate limit of {names} is reached ({limits[0].why}), so no new image comes from there. Give this machine"
        f" a login there with SLUICE_REGISTRY_CREDENTIALS_FILE, or wait until {end}"
    )


def _moment(seconds: float) -> str:
    """A moment in UTC, to the second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(now: float, head_time: float, pool_time: float | None, block_time: float) -> CheckResult:
    """Judge this machine's clock by the newest block and the pool's clock, all in Unix seconds (`pool_time`: None if it
    is not known). An old head alone tells of the node: only the pool's clock shows that this one is ahead.
    """
    numbers = {"seconds_after_head": round(now - head_time, 1), "limit_seconds": CLOCK_SECONDS}
    off = clock_error(now, head_time, pool_time, block_time)
    if off is not None:
        side = "ahead of" if off > 0 else "behind"
        says = f"this machine's clock is {abs(off):.0f} s {side} the chain's block time, and deadlines go by that"
        return CheckResult("clock", False, f"{says}. Set it, e.g. with NTP.", numbers | {"off_seconds": round(off, 1)})
    age = now - head_time
    if age > head_limit(block_time):
        says = f"the newest block is {age:.0f} s old"
        if pool_time is None:
            return CheckResult("clock", False, f"{says}: this clock is ahead, or the node is behind.", numbers)
        return CheckResult("clock", False, f"{says} though this clock is right: the node is behind.", numbers)
    return CheckResult("clock", True, f"{max(age, 0):.0f} s after the newest block", numbers)


def certainly_off(finding: CheckResult) -> bool:
    """Whether a finding of `clock` says that the clock is wrong, and not that the node is or may be behind."""
    return "off_seconds" in finding.numbers


def clock_error(now: float, head_time: float, pool_time: float | None, block_time: float) -> float | None:
    """Seconds that this clock is certainly ahead (or, negative, behind) by; None if it is right as far as is known."""
    if now < head_time - CLOCK_SECONDS:
        # No block is from the future.
        return now - head_time
    if now - head_time > head_limit(block_time) and pool_time is not None and now - pool_time > CLOCK_SECONDS:
        return now - pool_time
    return None


def head_limit(block_time: float) -> float:
    """Age in seconds up to which the newest block counts as current."""
    return CLOCK_SECONDS + OLD_BLOCKS * block_time


def gib(size: int) -> str:
    """Bytes as GiB, one decimal."""
    return f"{size / 2**30:.1f}"
