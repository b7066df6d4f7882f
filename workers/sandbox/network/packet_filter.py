"""The packet filter of apps with public network: what their bridges may not reach is refused by iptables.

One chain for all bridges of Sluice on this machine, so that no task needs a call of iptables (a machine with an allow
list of domains, `rules_listed`, has a bridge and a chain of its own, filled for each container):

    FORWARD      ─┐  from sluice…
    DOCKER-USER  ─┼────────────► SLUICE-APPS   more than CONNECTIONS at a time        ─► refused
    INPUT        ─┘                            the machine's name servers, port 53    ─► return
                                               published ports, this machine itself   ─► refused
                                               addresses that are not of the internet ─► refused
                                               all else                               ─► return

FORWARD as well as DOCKER-USER: a firewall's own accepting rules may stand before Docker's, and Docker puts its own
first whenever it starts.

It goes by the address of each packet: a name that leads to a private address at its second look-up gains nothing.
Two containers of one bridge are in one private range, so they do not reach each other either. IPv6 is refused as a
whole, since the apps' network has none. Apps see "no route to host" at once.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final

from protocol.errors import BadSetting
from workers.sandbox.network import name_servers

#: Beginning of the names of all bridges that it filters; no other program's.
BRIDGE_PREFIX: Final = "sluice"
CHAIN: Final = "SLUICE-APPS"
#: Docker's chain for rules of others; it is read before Docker's own.
DOCKER_CHAIN: Final = "DOCKER-USER"
#: IPv4 addresses that are not of the open internet (IANA's special-purpose registry), or that only a machine of one
#: provider reaches. The same as `workers.data.guard` refuses for downloads.
BLOCKED: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",  # RFC 6598; Alibaba Cloud's metadata at 100.100.100.200
    "127.0.0.0/8",
    "161.26.0.0/16",  # IBM Cloud's inside
    "166.8.0.0/14",  # IBM Cloud's inside
    "168.63.129.16/32",  # Azure's host agent
    "169.254.0.0/16",  # link-local; metadata at 169.254.169.254
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata at 192.0.0.192
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/3",  # multicast, reserved, broadcast
)
#: Connections of one container at a time. The kernel keeps a table of all, often of 65,536 in all, and a machine whose
#: table is full can make none itself.
CONNECTIONS: Final = 4096
#: Seconds iptables may take: it waits for a lock that all its callers share.
IPTABLES_SECONDS: Final = 30.0
#: Another worker may change the same chains meanwhile, which makes a change of ours fail as a whole.
TRIES: Final = 5

_REFUSE_4: Final = "-j REJECT --reject-with icmp-admin-prohibited"
_REFUSE_6: Final = "-j REJECT --reject-with icmp6-adm-prohibited"
_HOOK: Final = f"-i {BRIDGE_PREFIX}+ -j {CHAIN}"
#: Beginning of the names of bridges with an allow list, which have a chain each; CHAIN does not filter them.
LISTED_PREFIX: Final = "slist"
#: A rule, of whichever chain, that leads to one of Sluice's.
_ANY_HOOK: Final = re.compile(r"-A \S+ -i \S+ -j SLUICE-\S+")


def rules_4(servers: Iterable[str]) -> list[str]:
    """The rules of CHAIN for IPv4, as arguments of iptables, in order."""
    asks = [f"-d {server}/32 -p {kind} --dport 53 -j RETURN" for server in servers for kind in ("udp", "tcp")]
    return [
        *asks,
        # A published port of another container, by whatever address of this machine.
        f"-m conntrack --ctstate DNAT {_REFUSE_4}",
        f"-m addrtype --dst-type LOCAL {_REFUSE_4}",
        *(f"-d {network} {_REFUSE_4}" for network in BLOCKED),
    ]


#: The first rule for IPv4, where the kernel has connlimit.
LIMIT_4: Final = (
    "-m conntrack --ctstate NEW"
    f" -m connlimit --connlimit-above {CONNECTIONS} --connlimit-mask 32 --connlimit-saddr {_REFUSE_4}"
)
RULES_6: Final = (_REFUSE_6,)


def rules_listed(targets: Iterable[tuple[str, int]]) -> list[str]:
    """The rules of an allow list's chain for IPv4: these addresses and ports by TCP, and nothing else."""
    return [
        # An allowed name may lead to this machine's own address on the internet.
        f"-m conntrack --ctstate DNAT {_REFUSE_4}",
        f"-m addrtype --dst-type LOCAL {_REFUSE_4}",
        *(f"-d {address}/32 -p tcp --dport {port} -j RETURN" for address, port in targets),
        _REFUSE_4,
    ]


def restore_input(rules: Sequence[str], present: str, chain_name: str = CHAIN, to_chain: str = _HOOK) -> str:
    """Input of `iptables-restore --noflush`: fills a chain of Sluice's anew and puts the rules that lead to it before
    all but others of Sluice's, at once.

    `present`: what `iptables -S` prints now.
    """
    lines = present.splitlines()
    docker = [DOCKER_CHAIN] if f"-N {DOCKER_CHAIN}" in lines else []
    hooks: list[str] = []
    for chain in ("FORWARD", *docker, "INPUT"):
        of_chain = [line for line in lines if line.startswith(f"-A {chain} ")]
        hook = f"-A {chain} {to_chain}"
        if hook in takewhile(_ANY_HOOK.fullmatch, of_chain):
            continue
        if hook in of_chain:
            hooks.append(f"-D {chain} {to_chain}")
        hooks.append(f"-I {chain} 1 {to_chain}")
    body = [*(f"-A {chain_name} {rule}" for rule in rules), *hooks]
    return "\n".join(["*filter", f":{chain_name} - [0:0]", *body, "COMMIT", ""])


def apply() -> bool:
    """Set the filter, or set it again; meanwhile no packet passes that would not pass before or after.

    Returns whether the number of connections is limited too, which few kernels cannot. Raises BadSetting if this
    process may not set it, or has no iptables.
    """
    return _apply(rules_4(name_servers.allowed()), CHAIN, _HOOK)


def apply_listed(bridge: str, targets: Iterable[tuple[str, int]]) -> bool:
    """Set the filter of one bridge with an allow list: containers on it reach `targets` (address, port) and nothing
    else.

    Returns and raises as `apply`.
    """
    chain = f"SLUICE-{bridge.upper()}"
    return _apply(rules_listed(targets), chain, f"-i {bridge} -j {chain}")


def _apply(rules: Sequence[str], chain: str, hook: str) -> bool:
    """Set the rules for IPv4 and IPv6; returns whether the kernel also takes the rule that limits connections. Raises
    BadSetting.
    """
    limited = True
    try:
        _set("iptables", [LIMIT_4, *rules], chain, hook)
    except BadSetting:
        _set("iptables", rules, chain, hook)
        limited = False
    if Path("/proc/net/if_inet6").exists():
        _set("ip6tables", RULES_6, chain, hook)
    return limited


def _set(program: str, rules: Sequence[str], chain: str, hook: str) -> None:
    """Replace a chain by these rules, again if others change the filter meanwhile. Raises BadSetting."""
    for tries_left in reversed(range(TRIES)):
        text = restore_input(rules, _run([program, "-w", "-S"]), chain, hook)
        try:
            _run([f"{program}-restore", "-w", "--noflush"], text)
        except BadSetting:
            if tries_left == 0:
                raise
        else:
            return


def _run(command: list[str], given: str = "") -> str:
    """What a command prints. Raises BadSetting if it fails."""
    try:
        ended = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=IPTABLES_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise cannot_filter(f"{command[0]}: {type(error).__name__}") from error
    if ended.returncode != 0:
        raise cannot_filter(f"{command[0]}: {(ended.stderr.strip().splitlines() or ['no reason given'])[0][:200]}")
    return ended.stdout


def cannot_filter(why: str) -> BadSetting:
    """The error for a machine whose apps' network cannot be filtered."""
    return BadSetting(
        name="SLUICE_APP_NETWORK",
        why=f"public, and SLUICE_APP_DOMAINS, need a packet filter for apps, which this worker cannot set ({why})",
        fix="Run the worker as root beside the engine, with iptables (in a container: --network host --cap-add"
        " NET_ADMIN), or set SLUICE_APP_NETWORK=none, or open, with which apps reach all that this machine reaches.",
    )
