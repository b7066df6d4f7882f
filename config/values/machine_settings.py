"""Settings of a worker machine alone: what it offers, what it risks, and how its apps are confined."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from config.values.numbers import Bytes, Seconds
from config.values.sources import GivenOrEnvironment
from config.values.types import GPU, MachineName, Slots
from protocol import wire


class MachineSettings(GivenOrEnvironment):
    """What a worker machine needs beside the shared settings."""

    # -- worker ---------------------------------------------------------------------------------------------------
    allow_plaintext: bool = Field(
        False,
        description="Let a worker use addresses elsewhere without encryption (`http://`, `ws://`, RabbitMQ without"
        " TLS), which are refused otherwise. Only for a network that you trust.",
    )
    worker_name: MachineName = Field(
        "worker",
        description="Name of this machine in logs, of its containers and in Flower, where it stands as `machine` beside"
        " each of its steps: letters, digits, `_`, `.`, `-`.",
    )
    invite: SecretStr | None = Field(
        None, description="Invite code of the pool's operator, for a pool that takes new machines by invitation."
    )
    most_stake_nrlc: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Most nRLC that the pool's tasks may lock of this machine's deposit at a time; a task that would"
        " lock more is declined. Unset: the deposit itself is the limit.",
    )
    rlc_value_wei: int = Field(
        10**14,
        ge=0,
        description="What one RLC is worth to this machine, in wei of the chain's native token (on Bellecour they are"
        " one). A reveal may cost more than the max fee as long as it costs less than the stake that it saves.",
    )
    slots: Slots = Field(
        "auto",
        description="Containers this machine runs at once. auto: one for each processor of its Docker engine, as far as"
        " the engine's memory holds what the pool promises each app (1 GiB is left free), and no more than the pool"
        f" takes. A number may be as large as the pool takes, {wire.SLOTS_LIMIT} at most.",
    )
    gpus: str = Field(
        "",
        pattern=rf"^({GPU}(,{GPU})*)?$",
        description="GPUs of this machine that apps may use, separated by commas, by NVIDIA's numbers or UUIDs: 0,1."
        " A task that asks for a GPU gets one of them for itself, so the machine has no more slots than GPUs.",
    )
    enclave: Literal["none", "simulated", "tdx", "scone", "gramine"] = Field(
        "none",
        description="Kind of enclave that this machine runs. simulated: the tasks of TDX enclaves without attestation,"
        " so that the machine's owner can read all their secrets; refused unless the chain is a development one."
        " tdx: in a guest of a TDX host. scone, gramine: on SGX. Refused with what is missing.",
    )
    enclave_las: str | None = Field(None, description="Address and port at which containers reach SCONE's LAS.")
    enclave_heap_bytes: Bytes = Field(8 * 2**30, description="Largest heap of an app's SGX enclave, in bytes.")
    docker_host: str | None = Field(None, description="Docker engine, e.g. unix:///var/run/docker.sock.")
    memory_per_slot: Bytes = Field(
        wire.MEMORY_PER_SLOT,
        description="Memory of one container, in bytes. The scheduler's is the pool's promise to all apps:"
        " an app that needs more fails. A worker that sets less declines what runs out of memory; more has no effect.",
    )
    download_max_bytes: Bytes = Field(
        wire.DOWNLOAD_BYTES,
        description="Largest dataset or input file, in bytes. The scheduler's applies to all machines, and a larger"
        " file is the task's failure. A worker that sets less declines what is larger than its own.",
    )
    allow_private_downloads: bool = Field(
        False, description="Allow input files and datasets from private addresses (local stack only)."
    )
    scratch_bytes: Bytes = Field(
        wire.SCRATCH_BYTES,
        description="Bytes that an app may write outside /iexec_out, in its image's folders and volumes. All machines"
        " allow at most the default; more is the app's failure; a worker that sets less declines what writes more.",
    )
    least_free_bytes: Bytes = Field(
        2**30,
        ge=2**30,
        description="Bytes that a worker leaves free on each disk that apps write to, its own folder's and the"
        " engine's: with less free it takes no work, and kills the apps that write there. 1 GiB at least; more where"
        " others need it, e.g. a RabbitMQ on the same disk, which takes no message below a limit of its own.",
    )
    image_registries: str = Field(
        "",
        description="Registries that app images may come from, separated by commas, e.g. `docker.io,ghcr.io`; one"
        " named here may be at a private address. Empty: every public one.",
    )
    registry_credentials_file: Path | None = Field(
        None,
        description="Logins for registries, in the form of Docker's config.json (`auths`). Any deal may run what they"
        " can read: use an account that sees public images only. Docker's own logins are never used.",
    )
    image_max_bytes: Bytes = Field(
        wire.IMAGE_BYTES,
        description="Largest app image, unpacked, in bytes. All machines take at most the default; a larger image is"
        " the task's failure; a worker that sets less declines what is larger than its own.",
    )
    image_disk_bytes: Bytes = Field(
        64 * 2**30,
        description="Bytes that images fetched for deals may take together; the least recently used are removed.",
    )
    dataset_disk_bytes: Bytes = Field(
        64 * 2**30,
        description="Bytes that datasets kept for later tasks may take; the least recently used are removed.",
    )
    local_images: str = Field(
        "",
        description="Names of images on this machine's own engine that deals may run as they are, separated by commas"
        " (local stack and tests). Others are always fetched from their registry.",
    )
    sandbox: Literal["compat", "strict", "isolated"] = Field(
        "compat",
        description="How apps are confined: as ordinary images need it (compat); without network and capabilities, on a"
        " read-only file system with a small /tmp (strict); as compat, by a runtime of its own (isolated). A machine"
        " that is strict or isolated votes for results only and declines a task whose app fails.",
    )
    sandbox_runtime: str = Field(
        "runsc",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="The Docker engine's runtime for `isolated`, e.g. runsc (gVisor) or kata.",
    )
    app_network: Literal["public", "none", "open"] | None = Field(
        None,
        description="What apps reach: the internet, but no private address, no address of this machine and no other app"
        " (public); nothing (none); all that this machine reaches (open: unsafe). Unset: none in strict, else public."
        " With none, a task whose app fails is declined.",
    )
    app_domains: str = Field(
        "",
        description="Host names that apps reach and nothing else, e.g. `data.example.org,api.example.com:8443` (TCP;"
        " ports 80 and 443 unless one is named). Each is resolved when a container starts, and apps have no name"
        " server. A task whose app fails is declined. Empty: as SLUICE_APP_NETWORK has it.",
    )
    ping_seconds: Seconds = Field(10.0, description="How often a worker says it is alive.")
