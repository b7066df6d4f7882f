"""Checks what must be right before the scheduler's first process starts; `sluice scheduler doctor` reports the same.

settings, wallet, ports ─► wrong: ends at once
MongoDB, RabbitMQ, IPFS, chain, ownership, gas: asked side by side ─► one line for each that is not well
    away or slow, and nothing can work without it: asked again for WAIT_SECONDS (servers may start with us), then ends
    refuses us, or is not what the settings say: ends at once
    the scheduler can wait for it while it runs: goes on
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import httpx
import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from chain.contracts.ens_names import ens_names, with_addresses
from chain.keystore import load_key
from config.connections import broker_nodes
from config.connections.http_client import http_client, is_loopback
from config.settings import Settings
from config.values.endpoints import loopback_warnings, plaintext_warnings, public_endpoints, secret_services
from config.values.order_policy import read_policy
from ops import host_name
from ops.stack import ports
from pipeline.domain.condition import health
from pipeline.domain.condition.facts import Facts, NoAnswer, NodeFacts
from pipeline.domain.condition.health import HealthPart
from pipeline.probes import Probes
from protocol.errors import BadSetting, RpcError, RpcUnavailable, SchedulerNotReady, SluiceError, WrongChain
from protocol.ethereum.signing import Key
from protocol.poco.tags import Framework

log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

#: Names of the scheduler's processes, in the order in which they start.
PROCESSES = ("api", "watch", "pipeline", "lane", "beat", "flower")
#: Parts that the scheduler can wait for while it runs: its work goes on by itself once they are well.
RECOVERABLE = frozenset({"ipfs", "gas", "clock", "watcher", "lane", "workers", "addresses", "audit", "certificates"})
#: Seconds for a running scheduler to answer about itself; its own questions have shorter limits.
REPORT_SECONDS = 10.0
#: Seconds in which a server that does not answer yet is asked again: MongoDB and RabbitMQ take 10 to 20 to start.
WAIT_SECONDS = 30.0
#: Seconds between two rounds of questions.
PAUSE_SECONDS = 1.0
#: Placeholders for a password, and the default passwords of servers and of the local stack.
PLACEHOLDERS, LOCAL_PASSWORDS = frozenset({"change-me", "changeme"}), frozenset({"sluice", "guest", "password"})
#: Longest time in seconds to wait for another block, to tell a chain that stands still from a wrong clock.
SECOND_LOOK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One thing the pool needs: `fatal` if the scheduler cannot start without it."""

    part: str
    ok: bool
    says: str
    fix: str = ""
    fatal: bool = False


def check(settings: Settings, only: Collection[str] = ()) -> tuple[Key, tuple[str, ...]]:
    """The scheduler's key, and which of PROCESSES to run here. `only`: names wanted; empty means all.

    Looks at this machine only. Raises BadSetting, BadKeystore, PortTaken.
    """
    unknown = set(only) - set(PROCESSES)
    if unknown:
        why = f"there is no process {', '.join(sorted(unknown))}"
        raise BadSetting(name="--only", why=why, fix=f"Choose from {', '.join(PROCESSES)}.")
    key = load_key(settings)
    public_endpoints(settings)
    require_own_passwords(settings)
    read_policy(settings.orders_file, enclaves=secret_services(settings).keys())
    for name, value in (("SLUICE_HUB", settings.hub), ("SLUICE_WORKERPOOL", settings.workerpool)):
        if value is None:
            raise BadSetting(name=name, why="it is not set", fix="Give the contract's address.")
    wanted = tuple(name for name in PROCESSES if not only or name in only)
    if "api" in wanted:
        ports.require_free(settings.api_port, part="the API", setting="SLUICE_API_PORT")
        ports.require_free(settings.operations_port, part="health and metrics", setting="SLUICE_OPERATIONS_PORT")
    if "flower" in wanted:
        ports.require_free(settings.flower_port, part="Flower", setting="SLUICE_FLOWER_PORT")
    return key, wanted


def require_own_passwords(settings: Settings) -> None:
    """Raise BadSetting for a password that this project's files print: anyone could try it.

    The local stack's own ones are for servers that listen on this machine's loopback only.
    """
    brokers = [("SLUICE_AMQP_URL", url) for url in broker_nodes.amqp_urls(settings)]
    for name, secret in (*brokers, ("SLUICE_MONGODB_URI", settings.mongodb_uri.get_secret_value())):
        try:
            parts = urlsplit(secret)
            user, password, here = parts.username, unquote(parts.password or ""), is_loopback(parts.hostname or "")
        except ValueError:
            # Whoever connects to it says that it is no URL.
            continue
        if password in PLACEHOLDERS or (not here and password and password in {user, *LOCAL_PASSWORDS}):
            raise BadSetting(
                name=name,
                why="its password is one that everybody knows",
                fix="Make one (openssl rand -hex 32), give it to the server's user too, and write it here.",
            )


def resolve_names(settings: Settings, *, wait: float = WAIT_SECONDS) -> Settings:
    """The settings with an address in place of each ENS name. `wait`: as for `require`.

    Raises BadSetting, RpcUnavailable, RpcError.
    """
    names = ens_names(settings)
    if not names:
        return settings
    found = _call_in_child(_resolve_with_retries, settings, wait)
    return settings.model_copy(update={field: getattr(found, field) for field in names})


def require(
    settings: Settings, key: Key, *, wait: float = WAIT_SECONDS, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Ask every server and log each that is not well; called before the scheduler starts.

    Raises SchedulerNotReady if the scheduler cannot start without one of them. `wait`: seconds for which a server that
    does not answer is asked again. `meanwhile`: called while the servers are asked.
    """
    collect = _begin_in_child(_ask_findings, settings, key, wait)
    meanwhile()
    findings = collect()
    bad = [finding for finding in findings if not finding.ok]
    fatal = [finding for finding in bad if finding.fatal]
    if len(fatal) == 1 and len(bad) == 1:
        raise SchedulerNotReady(why=_finding_sentence(fatal[0]))
    for finding in bad:
        tell = log.error if finding.fatal else log.warning
        tell(finding.says, action="preflight", part=finding.part, fix=finding.fix)
    if fatal:
        names = ", ".join(finding.part for finding in fatal)
        raise SchedulerNotReady(why=f"{_finding_sentence(fatal[0])} Not ready: {names}; each has a line above.")


def require_free_name(settings: Settings, wanted: Collection[str], *, wait: float = WAIT_SECONDS) -> None:
    """Raise SchedulerNotReady if another scheduler is connected to RabbitMQ by this one's name, still after `wait`
    seconds.
    """
    _call_in_child(host_name.require_free_name, settings, wanted, wait)


def examine(settings: Settings, key: Key) -> list[PreflightFinding]:
    """A finding for every part, for `sluice scheduler doctor`. Raises BadSetting, also for passwords known to all.

    A scheduler that runs here is asked; where none runs, the servers are asked directly.
    """
    require_own_passwords(settings)
    running, secrets = _ask_running_scheduler(settings), ask_secret_service(settings)
    if running is not None:
        return [*_findings_of(settings, running), *secrets]
    idle = PreflightFinding(
        "scheduler", ok=True, says="it does not run here: queues, lane and machines were not asked about"
    )
    return [idle, *_findings_of(settings, _ask_servers(settings, key, wait=0.0)), *secrets]


def ask_secret_service(settings: Settings, transport: httpx.BaseTransport | None = None) -> list[PreflightFinding]:
    """A finding for each secret service that the pool names, which the scheduler can wait for. `transport`: for tests.
    Raises BadSetting.
    """
    named = secret_services(settings)
    return [
        _ask_secret_service(url, [kind for kind in named if named[kind] == url], transport)
        for url in sorted({*named.values()})
    ]


def _ask_secret_service(
    url: str, kinds: Sequence[Framework], transport: httpx.BaseTransport | None
) -> PreflightFinding:
    """The finding for a service that is named for these kinds of enclave."""
    try:
        with http_client(
            url, timeout=REPORT_SECONDS, answer_seconds=lambda: REPORT_SECONDS, transport=transport
        ) as http:
            kind = Framework(http.get("/tee/framework").raise_for_status().json())
    except (httpx.HTTPError, ValueError) as error:
        says = f"the secret service at {url} does not tell its kind of enclave ({type(error).__name__})"
        return PreflightFinding("secrets", ok=False, says=says, fix="Tasks for enclaves wait until it does.")
    if kind not in kinds:
        says = f"the secret service at {url} serves {kind}, and is named for {', '.join(kinds)}"
        return PreflightFinding("secrets", ok=False, says=says, fix="Correct SLUICE_ENCLAVE_SMS_URL.")
    return PreflightFinding("secrets", ok=True, says=f"the secret service at {url} serves {kind}")


def _findings_of(settings: Settings, parts: Mapping[str, HealthPart]) -> list[PreflightFinding]:
    """A finding for each part, and one for addresses that machines elsewhere could not reach."""
    found = [
        PreflightFinding(name, part.ok, part.detail, part.fix, fatal=not part.ok and name not in RECOVERABLE)
        for name, part in parts.items()
    ]
    told = [*loopback_warnings(settings), *plaintext_warnings(settings)]
    here = "this pool is for machines of this machine only: the API is told as a loopback address"
    elsewhere = "what machines elsewhere are told is not this machine's loopback address"
    says = " ".join(told) or (here if is_loopback(urlsplit(settings.api_url).hostname or "") else elsewhere)
    return [
        *found,
        PreflightFinding(
            "addresses", not told, says, "Set them to addresses with TLS that machines can reach." if told else ""
        ),
    ]


def _finding_sentence(finding: PreflightFinding) -> str:
    """A finding and its fix as sentences."""
    says = finding.says[:1].upper() + finding.says[1:]
    return f"{says.rstrip('.')}. {finding.fix}".strip()


def _ask_servers(settings: Settings, key: Key, *, wait: float) -> dict[str, HealthPart]:
    """The health of each part, asked from this process; a chain or clock that looks wrong is asked twice."""
    probes = Probes.open(settings, key)
    try:
        facts = ask_until_answered(probes, wait)
        parts = health.parts(facts, probes.pool)
        if isinstance(facts.node, NodeFacts) and not (parts["chain"].ok and parts["clock"].ok):
            time.sleep(min(2 * settings.block_time, SECOND_LOOK_SECONDS))
            parts = health.parts(probes.ask(running=False), probes.pool)
        return parts
    finally:
        probes.close()


def ask_until_answered(probes: Probes, wait: float) -> Facts:
    """The servers' answers, asked again for up to `wait` seconds while one that is required does not answer."""
    end, logged = time.monotonic() + wait, set[str]()
    while True:
        facts = probes.ask(running=False)
        answers = (facts.database, facts.broker, facts.node)
        away = [answer for answer in answers if isinstance(answer, NoAnswer)]
        left = end - time.monotonic()
        if not away or left <= 0 or not all(answer.may_recover for answer in away):
            return facts
        for why in {answer.why for answer in away} - logged:
            logged.add(why)
            log.warning("Not ready yet, asking again.", action="preflight_wait", why=why, seconds=round(left))
        time.sleep(min(PAUSE_SECONDS, left))


def _ask_running_scheduler(settings: Settings) -> dict[str, HealthPart] | None:
    """The health that a scheduler on this machine reports of its parts; None if none runs."""
    host = "127.0.0.1" if settings.operations_host in {"", "0.0.0.0", "::"} else settings.operations_host  # noqa: S104
    try:
        with http_client(f"http://{host}:{settings.operations_port}", timeout=REPORT_SECONDS) as http:
            told = http.get("/health").json()["parts"]
        return {name: HealthPart(part["ok"], part["detail"], part["fix"]) for name, part in told.items()}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def _call_in_child(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `ask`, called in a child process, or the SluiceError that it raised there."""
    return _begin_in_child(ask, *args, **kwargs)()


def _begin_in_child(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Call `ask` in a child process; what is returned waits for its result, or raises the SluiceError that it raised.

    The supervisor forks, so its own process must not start a thread.
    """
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_send_result, args=(sending, partial(ask, *args, **kwargs)))
    child.start()
    sending.close()

    def collect() -> T:
        """Wait for the child's end; its result, or raises its error."""
        try:
            answer, error = receiving.recv()
        except EOFError as ended:
            why = "What the scheduler needs could not be examined; the reason is above."
            raise SchedulerNotReady(why=why) from ended
        finally:
            child.join()
            receiving.close()
        if error is not None:
            kind, fields = error
            raise kind(**fields)
        found: T = answer
        return found

    return collect


def _send_result(sending: Connection, ask: Callable[[], object]) -> None:
    """Body of the child process: send the result of `ask`, or the SluiceError that it raised."""
    try:
        sending.send((ask(), None))
    except SluiceError as error:
        sending.send((None, (type(error), error.fields)))


def _ask_findings(settings: Settings, key: Key, wait: float) -> list[PreflightFinding]:
    """Body of `require` in the child process: the findings, asked from there."""
    return _findings_of(settings, _ask_servers(settings, key, wait=wait))


def _resolve_with_retries(settings: Settings, wait: float) -> Settings:
    """The settings with addresses for names; a node that does not answer is asked again for `wait` seconds."""

    def warn(state: RetryCallState) -> None:
        """Log that the node is awaited; tenacity calls it before each further try."""
        why = str(state.outcome.exception()) if state.outcome else None
        log.warning("Not ready yet, asking again.", action="preflight_wait", why=why)

    retrying = Retrying(
        retry=retry_if_exception(_may_answer_yet),
        wait=wait_fixed(PAUSE_SECONDS),
        stop=stop_after_delay(wait),
        before_sleep=warn,
        reraise=True,
    )
    return retrying(with_addresses, settings)


def _may_answer_yet(error: BaseException) -> bool:
    """Whether a node is asked again before the start; nodes of another chain are not."""
    return isinstance(error, (RpcUnavailable, RpcError)) and not isinstance(error, WrongChain)
