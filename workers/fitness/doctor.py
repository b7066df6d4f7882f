"""`sluice worker doctor`: can this machine work, and if not, why not? One result per part, also for one that could not
be checked.

wallet, docker, sandbox, disk    of this machine
limits, network, images          of its containers
enclave                          the kind that it runs
pool, broker                     can they be reached
chain, clock, gas, stake         the node, and what the chain says of the wallet
money                            this machine's own limits on what it pays and risks
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.lane.rules.fees import FeeMarket
from chain.rpc.client import Rpc
from chain.rpc.pool import RpcPool, connect
from config.connections.http_client import is_loopback
from config.settings import Settings
from protocol.errors import EngineRefused, EngineUnavailable, NoSuchImage, PoolUnavailable, SluiceError
from protocol.ethereum.signing import Key
from protocol.types import Contract, NRlc, TaskId, Wei
from protocol.wire import PoolConfig
from workers.context import Machine
from workers.data.guard import is_public
from workers.enclave.choice import KINDS
from workers.fitness import clock, rules
from workers.fitness.rules import CheckResult, Numbers
from workers.money import market, pins
from workers.money.ledger import open_ledger
from workers.money.limits import budget_of, caps_of
from workers.pool.api import PoolApi
from workers.pool.broker_reach import reach_any, require_tls
from workers.pool.saved_config import load_pool_config
from workers.pool.settings import check_scheduler, complete_settings
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image_store import ImageStore
from workers.sandbox.images.images_refused import KEPT_SECONDS, RefusedImages
from workers.sandbox.network import allow_list, listed_apps
from workers.sandbox.network.egress import Target
from workers.sandbox.profile import NetworkAccess, check_runtime, has_user_namespaces, own_kernel, sandbox_of, shortfall
from workers.sandbox.rehearsal import rehearse
from workers.sandbox.spec import ContainerSpec, container_name

#: An image that no engine has: one that is asked to make a container of it checks everything else first.
_NO_IMAGE = "sluice.invalid/doctor:none"
#: The part that says what apps reach.
NETWORK = "network"
#: The part that says which images this machine could not get or run.
IMAGES = "images"
#: Beginning of the sentence about a part that could not be checked because of another one.
NOT_ASKED = "not asked: "
#: Parts that need the pool's `/config`, which names chain and contracts.
ON_CHAIN = ("chain", "clock", "gas", "stake", "money")


def examine(settings: Settings, key: Key | None = None, *, thorough: bool = True) -> Iterator[CheckResult]:
    """Check each part of this machine in turn; without `thorough`, no container is run. `doctor`, `status` and checkups
    call it.

    `key`: the wallet's key, if the caller has opened the keystore already. Raises BadSetting, BadKeystore only if
    nothing at all can be checked.
    """
    try:
        key = key or load_key(settings)
        yield CheckResult("wallet", True, str(key.wallet))
    except SluiceError as error:
        yield CheckResult("wallet", False, str(error))
    yield _found("docker", lambda: docker(settings))
    yield _found("sandbox", lambda: sandbox(settings))
    yield disk(settings)
    pool, finding = _pool(settings, key)
    yield finding
    if pool is None or key is None:
        missing = "that needs a wallet" if pool is not None else "the pool, which says where that is, does not answer"
        for part in ("limits", "enclave", "network", IMAGES, *ON_CHAIN, "broker"):
            yield CheckResult(part, False, f"{NOT_ASKED}{missing}")
        return
    try:
        own = complete_settings(settings, pool)
        machine = Machine(own, key, pool, PoolApi.of(settings))
        pins.check(machine.layout, own, settings.model_fields_set)
    except SluiceError as error:
        yield CheckResult("settings", False, str(error))
        return
    with closing(machine.api):
        yield limits(machine)
        yield _found("enclave", lambda: enclave(machine))
        if thorough:
            yield _found("network", lambda: network(machine))
        yield images(machine, time.time())
        yield from on_chain(machine, time.time())
    yield broker(machine)


def docker(settings: Settings) -> CheckResult:
    """Whether the Docker engine answers and its files can be reached. Raises EngineUnavailable, BadSetting."""
    engine = Engine(settings.docker_host)
    with closing(engine):
        info = engine.require_reach(os.geteuid())
    memory, cpus = int(info["MemTotal"]), int(info["NCPU"])
    system = f"{info.get('OSType', '')}/{info.get('Architecture', '')}"
    says = (
        f"{engine.host}, version {info['ServerVersion']}, {system}, {cpus} CPUs, {rules.gib(memory)} GiB,"
        f" runtimes {', '.join(sorted(info.get('Runtimes') or {}))}"
    )
    numbers: Numbers = {
        "version": str(info["ServerVersion"]),
        "system": system,
        "cpus": cpus,
        "memory_bytes": memory,
    }
    return CheckResult("docker", True, says, numbers)


def limits(machine: Machine) -> CheckResult:
    """Whether the engine takes the containers that this machine would make: their name, processors, memory, folders.

    The engine is asked for a container of an image that it does not have: it checks all else before the image.
    """
    settings = machine.settings
    folder = str(_nearest(machine.layout.root))

    def ask() -> CheckResult:
        """The finding; raises what the engine's refusal raises."""
        allowed = machine.limits
        numbers: dict[str, int | str] = {
            "slots": machine.slots.count,
            "slots_bound": machine.slots.bound,
            "nano_cpus_per_slot": allowed.nano_cpus,
            "memory_bytes_per_slot": allowed.memory_bytes,
        }
        spec = ContainerSpec(
            name=container_name(settings.worker_name, machine.wallet, TaskId("doctor")),
            image=_NO_IMAGE,
            command=(),
            environment={},
            labels={},
            inputs=folder,
            outputs=folder,
            limits=allowed,
            seconds=1,
            sandbox=machine.sandbox,
        )
        with closing(Engine(settings.docker_host)) as engine:
            memory = int(engine.info()["MemTotal"])
            try:
                engine.remove(engine.create(spec))
            except NoSuchImage:
                pass
            except EngineRefused as error:
                fix = "Correct SLUICE_SLOTS, SLUICE_MEMORY_PER_SLOT, SLUICE_HOME or the engine."
                return CheckResult("limits", False, f"{error}. Every task would be declined. {fix}", numbers)
        slots = machine.slots
        wanted = slots.count * allowed.memory_bytes
        says = (
            f"{slots.count} slots of {allowed.nano_cpus / 1e9:g} CPUs and {rules.gib(allowed.memory_bytes)} GiB,"
            f" {slots.bound}"
        )
        if machine.gpus:
            says += f"; GPUs {', '.join(machine.gpus)}"
        if wanted > memory:
            says += f"; all of them may want {rules.gib(wanted)} GiB and the engine has {rules.gib(memory)}"
        return CheckResult("limits", True, says, numbers | {"engine_memory_bytes": memory})

    return _found("limits", ask)


def sandbox(settings: Settings) -> CheckResult:
    """How apps are confined, and whether the engine can. Raises BadSetting, EngineUnavailable."""
    asked = sandbox_of(settings)
    with closing(Engine(settings.docker_host)) as engine:
        info = engine.info()
    check_runtime(asked, info)
    runtime, remapped = asked.runtime or str(info.get("DefaultRuntime") or ""), has_user_namespaces(info)
    root = "an ordinary user outside" if remapped else "root outside, without its privileges (no user namespaces)"
    network = f"{asked.network} ({allow_list.words(asked.domains)})" if asked.domains else str(asked.network)
    says = f"{asked.profile}, runtime {runtime}, network {network}; root in a container is {root}"
    if own_kernel(runtime, info):
        says += (
            f". {runtime} gives apps a kernel of their own{_program(info, runtime)}: that answers their calls, with its"
            " own limits in place of the seccomp filter; the packet filter is this machine's and still holds"
        )
    stricter = shortfall(asked, info)
    if stricter is not None:
        says += (
            f". {stricter} is stricter than the pool promises to apps, which may fail for that: a task whose app"
            " fails here is declined and earns nothing; only results are voted for"
        )
    numbers: Numbers = {
        "profile": str(asked.profile),
        "runtime": runtime,
        "network": str(asked.network),
        "domains": allow_list.words(asked.domains),
        "user_namespaces": remapped,
        "votes_failures": stricter is None,
    }
    return CheckResult("sandbox", True, says, numbers)


def _program(info: Mapping[str, object], runtime: str) -> str:
    """The runtime's program according to the engine, as " (/usr/bin/runsc)"; empty if it does not say."""
    runtimes = info.get("Runtimes")
    found = runtimes.get(runtime) if isinstance(runtimes, Mapping) else None
    path = found.get("path") or found.get("runtimeType") if isinstance(found, Mapping) else None
    return f" ({path})" if path else ""


def enclave(machine: Machine) -> CheckResult:
    """Whether this machine can run the kind of enclave that it is set to. Raises BadSetting, EngineUnavailable."""
    kind, framework = machine.settings.enclave, machine.framework
    if framework is None:
        return CheckResult("enclave", True, f"{kind}: tasks for enclaves go to other machines", {"kind": kind})
    with closing(Engine(machine.settings.docker_host)) as engine:
        framework.require(engine, machine.layout)
    says = f"{kind}, sessions from {machine.pool.secret_service(KINDS[kind])}"
    if kind == "simulated":
        says += ": this machine's owner can read what they hold"
    return CheckResult("enclave", True, says, {"kind": kind, "tag": framework.tag})


def network(machine: Machine) -> CheckResult:
    """What an app reaches, tried from inside a container. Raises BadSetting, EngineUnavailable."""
    return CheckResult("network", True, rehearse(machine, outside=_find_public_api(machine.settings)).network)


def _find_public_api(settings: Settings) -> Target | None:
    """Public address and port of the pool's API, which apps must be able to reach; None if it has no public address."""
    api = urlsplit(settings.api_url)
    try:
        port = api.port or socket.getservbyname(api.scheme)
        found = socket.getaddrinfo(api.hostname, port, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, ValueError):
        return None
    addresses = [str(address[0]) for *_, address in found]
    return next(((each, port) for each in addresses if is_public(ip_address(each))), None)


def packet_filter(machine: Machine) -> CheckResult:
    """Set the packet filter of apps again, since another program may have emptied it, e.g. a reloaded firewall."""

    def ask() -> CheckResult:
        """The finding, once the packet filter is set; raises what the engine and the filter raise."""
        with closing(Engine(machine.settings.docker_host)) as engine:
            if machine.sandbox.network is NetworkAccess.PUBLIC:
                engine.confine_apps()
            elif machine.sandbox.network is NetworkAccess.LISTED:
                listed_apps.confine(engine, machine.layout, machine.wallet)
        return CheckResult(NETWORK, True, str(machine.sandbox.network))

    return _found(NETWORK, ask)


def images(machine: Machine, now: float) -> CheckResult:
    """What kept this machine from images in the last day. `now`: Unix seconds."""
    lately, root = now - KEPT_SECONDS, machine.layout.root
    try:
        with closing(Engine(machine.settings.docker_host)) as engine:
            platform = "/".join(engine.platform)
    except EngineUnavailable as error:
        return CheckResult(IMAGES, False, f"{NOT_ASKED}{error}")
    return rules.images(RefusedImages(root).met_since(lately), ImageStore(root).used_since(lately), platform, now)


def disk(settings: Settings) -> CheckResult:
    """Whether the disk of SLUICE_HOME has space for images and results."""
    return rules.disk(shutil.disk_usage(_nearest(settings.home.absolute())).free, str(settings.home))


def _pool(settings: Settings, key: Key | None) -> tuple[PoolConfig | None, CheckResult]:
    """The pool's `/config`; the saved one while the pool does not answer."""
    try:
        with closing(PoolApi.of(settings)) as api:
            pool = api.config()
    except PoolUnavailable as error:
        known = load_pool_config(settings, key.wallet) if key is not None else None
        also = " The parts below use the configuration saved at this machine's last start." if known is not None else ""
        return known, CheckResult("pool", False, f"{error} No task arrives while it does not answer.{also}")
    except SluiceError as error:
        return None, CheckResult("pool", False, str(error))
    return pool, CheckResult(
        "pool", True, f"workerpool {pool.workerpool} at {settings.api_url}, version {pool.version}"
    )


def broker(machine: Machine) -> CheckResult:
    """Whether RabbitMQ can be reached, and whether its certificate is trusted."""
    pool, settings = machine.pool, machine.settings
    nodes = pool.broker_nodes
    if not nodes:
        return CheckResult("broker", True, f"{NOT_ASKED}this pool says where it is only at sign-in")
    numbers: Numbers = {"host": nodes[0].host, "port": nodes[0].port, "tls": pool.amqp_tls, "nodes": len(nodes)}
    host = next((node.host for node in nodes if is_loopback(node.host)), None)
    if host is not None and not is_loopback(urlsplit(settings.api_url).hostname or ""):
        says = f"the pool tells its workers that RabbitMQ is on their own machine ({host})"
        return CheckResult("broker", False, f"{says}. Its operator must set SLUICE_AMQP_PUBLIC_HOST.", numbers)

    def ask() -> CheckResult:
        """The finding, once a node has answered; raises as `require_tls` and `reach_any`."""
        require_tls(nodes, tls=pool.amqp_tls, allowed=settings.allow_plaintext)
        silent = reach_any(nodes, tls=pool.amqp_tls, ca_file=settings.amqp_ca_file)
        way = "TLS, certificate and host name verified" if pool.amqp_tls else "not encrypted"
        where = ", ".join(node.authority for node in nodes if node not in silent)
        lacks = "".join(f"; {node.authority} does not answer: {error}" for node, error in silent.items())
        return CheckResult("broker", True, f"{where}, {way}{lacks}", numbers)

    return _found("broker", ask)


def on_chain(machine: Machine, now: float, *, thorough: bool = True) -> list[CheckResult]:
    """ON_CHAIN: the node, this machine's clock (`now`, Unix seconds), the wallet's gas and stake, the limits of money.

    Keeps what gas costs for the machine's other processes. Not `thorough`: the chain is taken to be the one that it was
    at the last thorough check, and a chain that took nothing on top of gas then to take nothing now.
    """
    settings = machine.settings
    try:
        with closing(connect(settings)) as rpc:
            hub = Hub(rpc, Contract(str(settings.hub)))
            if thorough:
                hub.check_chain(settings)
                check_scheduler(hub, machine.pool)
            on_top = (
                market.surcharge(rpc, machine.wallet) if thorough or market.noted_surcharge(machine.layout) else None
            )
            return _wallet_on_chain(machine, hub, rpc, now, on_top)
    except SluiceError as error:
        asked = CheckResult("chain", False, str(error))
        return [asked, *(CheckResult(part, False, f"{NOT_ASKED}that needs the chain") for part in ON_CHAIN[1:])]


def _wallet_on_chain(
    machine: Machine, hub: Hub, rpc: Rpc | RpcPool, now: float, on_top: Mapping[str, int] | None
) -> list[CheckResult]:
    """The results of `on_chain`. `on_top`: gas that the chain takes on top of a call's own; None: as it was."""
    settings, wallet, head = machine.settings, machine.wallet, hub.head()
    least = machine.pool.least_stake
    account, (balance,) = hub.account(wallet, head), hub.balances([wallet], head)
    newest, price = clock.read_head(rpc), hub.gas_price()
    tip = price if newest.base_fee is None else max(0, price - newest.base_fee)
    return [
        CheckResult(
            "chain", True, f"{rpc.name}, chain {settings.chain_id}, block {head}, hub {settings.hub}", {"block": head}
        ),
        clock.check(newest, machine.api, now, settings.block_time),
        rules.gas(Wei(balance), price),
        rules.stake(account.stake, account.locked, None if least is None else NRlc(least)),
        money(machine, FeeMarket(newest.base_fee, Wei(tip)), on_top),
    ]


def money(machine: Machine, seen: FeeMarket, surcharge: Mapping[str, int] | None) -> CheckResult:
    """Whether this machine's own limits on spending allow a task at the present price of gas.

    `surcharge`: gas on top by lane method (`market.surcharge`); None if not known.
    """
    layout, policy, least = machine.layout, machine.policy, machine.pool.least_stake
    if not layout.root.exists():
        # It has never run.
        nothing = Wei(0)
        budget = budget_of(
            policy,
            seen,
            spent=nothing,
            signed=nothing,
            queued_gas=0,
            replicates=(),
            stakes={},
            surcharge=surcharge or {},
        )
        return rules.money(budget, caps_of(machine.settings), NRlc(least or 0))
    market.note(layout, seen, surcharge)
    with open_ledger(machine.settings, policy, layout, machine.wallet) as ledger:
        return rules.money(ledger.budget(), ledger.caps, NRlc(least or 0))


def _found(part: str, ask: Callable[[], CheckResult]) -> CheckResult:
    """The finding, or an error in its place."""
    try:
        return ask()
    except SluiceError as error:
        return CheckResult(part, False, str(error))


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder
