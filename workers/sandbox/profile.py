"""How strictly a machine confines apps: from its settings to one frozen value. Pure.

              network          root file system     capabilities   runtime
    compat    public           writable             CAPABILITIES   the engine's own
    strict    none             read-only + /tmp     none           the engine's own
    isolated  public           writable             CAPABILITIES   SLUICE_SANDBOX_RUNTIME (gVisor, Kata)

SLUICE_APP_DOMAINS makes `public` a list of hosts (`allow_list`).

All of them: no new privileges, Docker's seccomp filter, no devices but a GPU that the deal asks for, limits of `spec`.

The pool promises apps no less than `compat` with the internet. Under anything less, or another runtime, an app may fail
for what this machine keeps from it: such a machine votes for results, never for failures of apps (`Sandbox.stricter`,
and `shortfall` with what the engine itself keeps from apps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from config.settings import Settings
from protocol.errors import BadSetting
from workers.sandbox.network.allow_list import SETTING, AllowedHost, read_hosts, words

#: Linux capabilities that ordinary images need to chown their files and to drop to another user.
CAPABILITIES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
#: Part of a container's memory that a strict one's /tmp may take: what lies there counts as the app's memory.
TMP_PART: Final = 4
#: Runtimes that an engine need not list: it looks for a program of this name (containerd-shim-…).
_SHIM: Final = "io.containerd."
#: Parts of the names of runtimes that give an app another kernel than this machine's, and of their programs.
_OWN_KERNEL: Final = ("runsc", "gvisor", "kata", "firecracker")


class Profile(StrEnum):
    """SLUICE_SANDBOX."""

    COMPAT = "compat"
    STRICT = "strict"
    ISOLATED = "isolated"


class NetworkAccess(StrEnum):
    """SLUICE_APP_NETWORK."""

    #: The internet, and no address that is not of the internet.
    PUBLIC = "public"
    #: The hosts that SLUICE_APP_DOMAINS names; no value of the setting itself.
    LISTED = "listed"
    NONE = "none"
    #: Docker's default network: all that this machine reaches.
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What every app of a machine gets."""

    profile: Profile
    network: NetworkAccess
    capabilities: tuple[str, ...]
    #: Whether the root file system is read-only, with a /tmp in memory.
    read_only: bool
    #: Name of the engine's OCI runtime; None: its default.
    runtime: str | None
    #: What apps reach if `network` is LISTED.
    domains: tuple[AllowedHost, ...] = ()

    @property
    def stricter(self) -> str | None:
        """The settings, in words, that give apps less than the pool promises them or another runtime; None: none do."""
        found = []
        if self.profile is not Profile.COMPAT:
            found.append(f"SLUICE_SANDBOX={self.profile}")
        if self.network is NetworkAccess.NONE and self.profile is not Profile.STRICT:
            found.append("SLUICE_APP_NETWORK=none")
        if self.domains:
            found.append(f"{SETTING}={words(self.domains)}")
        return " and ".join(found) or None


def sandbox_of(settings: Settings) -> Sandbox:
    """The sandbox that these settings ask for. Raises BadSetting where two of them contradict each other."""
    profile = Profile(settings.sandbox)
    strict = profile is Profile.STRICT
    network = NetworkAccess(settings.app_network or (NetworkAccess.NONE if strict else NetworkAccess.PUBLIC))
    if strict and network is not NetworkAccess.NONE:
        raise BadSetting(
            name="SLUICE_APP_NETWORK",
            why=f"it is {network}, and SLUICE_SANDBOX=strict gives apps no network",
            fix="Unset it, or use SLUICE_SANDBOX=compat.",
        )
    domains = read_hosts(settings.app_domains)
    if domains and network is not NetworkAccess.PUBLIC:
        raise BadSetting(
            name=SETTING,
            why=f"it names what apps reach, and SLUICE_APP_NETWORK is {network}"
            + (" in SLUICE_SANDBOX=strict" if strict else ""),
            fix="Unset one of them.",
        )
    return Sandbox(
        profile=profile,
        network=NetworkAccess.LISTED if domains else network,
        domains=domains,
        capabilities=() if strict else CAPABILITIES,
        read_only=strict,
        runtime=settings.sandbox_runtime if profile is Profile.ISOLATED else None,
    )


def shortfall(sandbox: Sandbox, info: Mapping[str, object]) -> str | None:
    """What gives apps less than the pool promises them, in words: settings, or the engine (its `info`) with its user
    namespaces; None: nothing does.
    """
    if sandbox.stricter is None and has_user_namespaces(info):
        return "an engine with user namespaces (userns-remap, rootless)"
    return sandbox.stricter


def check_runtime(sandbox: Sandbox, info: Mapping[str, object]) -> None:
    """Raise BadSetting if the engine (its `info`) is Podman, does not have the sandbox's runtime, or would run apps in
    a kernel of their own while the sandbox has what the pool promises: a failure there would be voted as the app's.
    """
    if "BuildahVersion" in info:
        raise BadSetting(
            name="SLUICE_DOCKER_HOST",
            why="Podman answers there, whose Docker API gives images other names than Docker does, and whose containers"
            " do not start with the limits of an app (tried with Podman 4.3)",
            fix="Name the socket of a Docker engine.",
        )
    runtimes = info.get("Runtimes")
    names = sorted(runtimes) if isinstance(runtimes, Mapping) else []
    default = str(info.get("DefaultRuntime") or "")
    if sandbox.stricter is None and own_kernel(default, info):
        raise BadSetting(
            name="SLUICE_SANDBOX",
            why=f"it is {sandbox.profile}, and this engine's default runtime {default} runs apps in a kernel of their"
            " own, where they may fail although they have what the pool promises",
            fix=f"Set SLUICE_SANDBOX=isolated and SLUICE_SANDBOX_RUNTIME={default}, under which results are voted for"
            " and no failures of apps, or make runc the engine's default.",
        )
    if sandbox.runtime is None or sandbox.runtime in names or sandbox.runtime.startswith(_SHIM):
        return
    raise BadSetting(
        name="SLUICE_SANDBOX",
        why=f"isolated needs the runtime {sandbox.runtime}, and this Docker engine has {', '.join(names) or 'none'}",
        fix="Install it and add it to the engine's runtimes, name another with SLUICE_SANDBOX_RUNTIME, or use compat.",
    )


def own_kernel(runtime: str, info: Mapping[str, object]) -> bool:
    """Whether this runtime of the engine is one that gives an app a kernel of its own, by its name or its program."""
    runtimes = info.get("Runtimes")
    found = runtimes.get(runtime) if isinstance(runtimes, Mapping) else None
    said = [runtime, *(str(found.get(key) or "") for key in ("path", "runtimeType") if isinstance(found, Mapping))]
    return any(word in text.lower() for text in said for word in _OWN_KERNEL)


def has_user_namespaces(info: Mapping[str, object]) -> bool:
    """Whether root in a container is an ordinary user outside: `userns-remap` of the engine, or a rootless engine.

    An app has fewer users and groups there (65,536 by default), and what is bound into its container belongs to nobody
    in it: it may fail for that although it has what the pool promises.
    """
    options = info.get("SecurityOptions")
    found = [str(option) for option in options] if isinstance(options, list) else []
    return any(word in option.split(",") for option in found for word in ("name=userns", "name=rootless"))
