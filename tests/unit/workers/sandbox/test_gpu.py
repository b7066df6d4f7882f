"""Machines that offer GPUs, and the containers of apps that ask for one. No GPU is needed for any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import docker
import pytest

from config.settings import read_settings
from protocol.errors import BadSetting, EngineTrouble, NoSuchContainer
from protocol.poco.tags import GPU_BIT, fits, make_tag
from protocol.types import ZERO_HASH
from tests.unit.workers.assignments import WORKER_KEY
from tests.unit.workers.sandbox.test_sandbox import spec
from tests.unit.workers.task.test_slots import GIB, machine
from workers.data.layout import Layout
from workers.sandbox.engine.host_config import host_config
from workers.sandbox.gpu import free_gpu
from workers.sandbox.spec import LABEL_GPUS, EngineResources

WALLET = WORKER_KEY.wallet
RESOURCES = EngineResources(cpus=8, memory_bytes=64 * GIB)


class FakeEngine:
    """An engine with these containers: their state, and the GPUs that their label names (None: no such label)."""

    def __init__(self, **containers: tuple[str, str | None]) -> None:
        self.found = containers
        self.gone: set[str] = set()

    def containers_of(self, wallet: str) -> list[tuple[str, str]]:
        assert wallet == WALLET
        return [("task", name) for name in [*self.found, *self.gone]]

    def inspect(self, name: str) -> dict[str, Any]:
        if name in self.gone:
            raise NoSuchContainer(why=name)
        status, gpus = self.found[name]
        return {"State": {"Status": status}, "Config": {"Labels": None if gpus is None else {LABEL_GPUS: gpus}}}


def chosen(layout: Layout, engine: FakeEngine, *offered: str) -> str:
    with free_gpu(cast("Any", engine), layout, WALLET, offered) as (gpu,):
        return gpu


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "worker")
    made.make()
    return made


def test_a_container_gets_the_gpus_of_its_spec_and_a_label_that_names_them() -> None:
    api = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    with_gpu = spec().with_gpus(("1",))
    (request,) = host_config(api, with_gpu)["DeviceRequests"]
    assert (request["Driver"], request["DeviceIDs"], request["Capabilities"]) == ("nvidia", ["1"], [["gpu"]])
    # Either a number or names: Docker refuses both.
    assert request["Count"] == 0
    assert with_gpu.labels[LABEL_GPUS] == "1"
    assert not host_config(api, spec()).get("DeviceRequests")
    assert LABEL_GPUS not in spec().with_gpus(()).labels
    assert not host_config(api, with_gpu).get("Devices")


def test_an_app_gets_a_gpu_that_no_container_of_this_machine_has(layout: Layout) -> None:
    assert chosen(layout, FakeEngine(), "0", "1") == "0"
    assert chosen(layout, FakeEngine(a=("running", "0")), "0", "1") == "1"
    # Made by a process that was killed before it started it.
    assert chosen(layout, FakeEngine(a=("created", "0"), b=("running", None)), "0", "1") == "1"
    assert chosen(layout, FakeEngine(a=("exited", "0"), b=("running", "1")), "0", "1") == "0"


def test_a_container_that_is_removed_meanwhile_has_no_gpu(layout: Layout) -> None:
    engine = FakeEngine(a=("running", "1"))
    engine.gone.add("b")
    assert chosen(layout, engine, "0", "1") == "0"


def test_while_all_gpus_are_in_use_the_engine_is_asked_again_and_nothing_is_shared(layout: Layout) -> None:
    with pytest.raises(EngineTrouble, match="SLUICE_GPUS"):
        chosen(layout, FakeEngine(a=("running", "1"), b=("paused", "0")), "0", "1")


def test_no_other_task_chooses_a_gpu_until_the_container_is_made(layout: Layout) -> None:
    engine = cast("Any", FakeEngine())
    with free_gpu(engine, layout, WALLET, ("0",)), layout.lock("gpus", wait=False) as free:
        assert not free
    with layout.lock("gpus", wait=False) as free:
        assert free


def test_a_machine_offers_gpus_by_its_tag_and_has_a_slot_for_each_at_most() -> None:
    gpu = make_tag(GPU_BIT)
    plain, offering = machine(RESOURCES), machine(RESOURCES, gpus="1,0")
    assert (plain.capabilities.tag, plain.capabilities.slots) == (ZERO_HASH, 8)
    assert (offering.capabilities.tag, offering.capabilities.slots) == (gpu, 2)
    assert offering.gpus == ("0", "1")
    assert "SLUICE_GPUS" in offering.slots.bound
    assert fits(gpu, offering.tag)
    assert not fits(gpu, plain.tag)
    assert machine(RESOURCES, gpus="0,1", slots=1).slots.count == 1
    assert machine(RESOURCES, gpus="0,1", slots=5).slots.count == 2


@pytest.mark.parametrize("wrong", ["0;1", "0, 1", "all gpus", ",", "0,", "--gpus", "../0"])
def test_what_names_no_gpu_is_refused(wrong: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_GPUS"):
        read_settings(gpus=wrong)
