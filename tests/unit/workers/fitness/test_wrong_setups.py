"""A machine that is set up wrong: its cause at `doctor`, at start and in `sluice worker status`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from chain.lane.model.intent import UNENDED, LaneId
from chain.rpc.answers import Unknown
from config.settings import Settings, read_settings
from ops.commands.run import worker
from protocol.errors import BadSetting, ContainerRefused, NoSuchImage, RpcUnavailable, SluiceError
from protocol.results.error_result import MACHINE_FAILED, cause_code
from protocol.types import NRlc, Wei
from protocol.wire import Mode, Report, Step
from tests.unit.workers.assignments import CHAIN_ID, SCHEDULER_KEY, WORKER_KEY, WORKERPOOL, assignment, task_id
from tests.unit.workers.pool.test_complete_settings import POOL
from workers.context import Machine, WorkerContext
from workers.data.layout import layout_of
from workers.fitness import checkup, clock, doctor
from workers.fitness import status as machine_status
from workers.fitness.clock import Head
from workers.fitness.rules import CheckResult
from workers.pool.api import PoolApi
from workers.pool.saved_config import settings_from_pool
from workers.sandbox import rehearsal
from workers.sandbox.images.images_refused import Obstacle, RefusedImage, RefusedImages
from workers.task import steps
from workers.task.compute import compute
from workers.task.replicate import ReplicateStage

STAKE = 30
INFO = {"NCPU": 2, "MemTotal": 4 * 2**30, "ServerVersion": "27", "OSType": "linux", "Architecture": "x86_64"}


@dataclass
class Around:
    """What is around the machine: its engine, disk, clock and wallet; all is well unless a test says otherwise."""

    #: Why the engine refuses containers.
    refuses: str | None = None
    free_bytes: int = 2**40
    clock_off: float = 0.0
    balance: int = 10**18
    stake: int = 10**9
    platform: tuple[str, str] = ("linux", "amd64")
    #: What registries and images had against the machine an hour ago, by image.
    refused: dict[str, tuple[Obstacle, str]] = field(default_factory=dict)
    made: list[Any] = field(default_factory=list)

    def engine(self, *_: object) -> Any:
        def create(spec: Any) -> str:
            self.made.append(spec)
            if self.refuses is not None:
                raise ContainerRefused(why=self.refuses)
            if spec.image.endswith("none"):
                raise NoSuchImage(why=spec.image)
            return "id"

        return SimpleNamespace(
            host="unix:///engine",
            data_folder=None,
            info=lambda: INFO,
            require_reach=lambda _: INFO,
            create=create,
            remove=lambda _: None,
            start=lambda *_: None,
            make_image=lambda *_: None,
            platform=self.platform,
            file_exists=lambda *_: True,
            containers_of=lambda _: [],
            close=lambda: None,
        )

    def hub(self, *_: object) -> Any:
        account = SimpleNamespace(stake=NRlc(self.stake), locked=NRlc(0))
        return SimpleNamespace(
            check_chain=lambda _: None,
            head=lambda: 1,
            account=lambda *_: account,
            balances=lambda *_: [self.balance],
            gas_price=lambda: Wei(2 * 10**9),
            deals=lambda ids: [Unknown("not asked here")] * len(ids),
        )


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Around:
    made = Around()
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    pool = POOL.model_copy(update={"least_stake": STAKE, "chain_id": 31337})
    worker_row = SimpleNamespace(slots=1, usable=1, busy=0, lost=False, banned=False)
    monkeypatch.setattr(PoolApi, "config", lambda _: pool)
    monkeypatch.setattr(PoolApi, "worker", lambda *_: worker_row)
    for module in (doctor, rehearsal):
        monkeypatch.setattr(module, "Engine", made.engine)
    monkeypatch.setattr("workers.context.Engine", made.engine)
    # All that it is asked itself is what a plain transfer takes.
    node = SimpleNamespace(name="the node", close=lambda: None, batch=lambda asked: ["0x5208"] * len(asked))
    for module in (doctor, machine_status):
        monkeypatch.setattr(module, "connect", lambda _: node)
        monkeypatch.setattr(module, "Hub", made.hub)
    monkeypatch.setattr(doctor, "check_scheduler", lambda *_: None)
    # What a container reaches is tried with a real engine: tests/integration/workers/test_rehearsal.py.
    monkeypatch.setattr(doctor, "network", lambda _: CheckResult("network", True, "not tried"))
    monkeypatch.setattr(clock, "read_head", lambda _: Head(time.time() + made.clock_off, Wei(10**9)))
    monkeypatch.setattr(clock, "pool_time", lambda _: time.time() + made.clock_off)
    monkeypatch.setattr("workers.fitness.doctor.shutil.disk_usage", lambda _: SimpleNamespace(free=made.free_bytes))
    return made


def settings_of(home: Path, **fields: object) -> Settings:
    # Real ones, from the environment as the command reads them.
    plain = {"home": home, "private_key": "0x" + "11" * 32, "api_url": "https://pool.example", "app_network": "none"}
    return read_settings(**plain, **fields)


def remember(around: Around, settings: Settings) -> None:
    """The machine has been refused these images before."""
    kept, now = RefusedImages(layout_of(settings.home, WORKER_KEY.wallet).root), time.time()
    for image, (obstacle, why) in around.refused.items():
        until = now + 1800 if obstacle is Obstacle.RATE_LIMIT else None
        kept.note(RefusedImage(image, image.partition("/")[0], obstacle, why, now - 60, until))


def started(settings: Settings) -> str:
    """What a start says: its error, or what the machine logs at its first check."""
    own = settings_from_pool(settings)
    machine = Machine(own, WORKER_KEY, PoolApi.config(None), PoolApi.of(settings))  # type: ignore[arg-type]
    machine.layout.make()
    try:
        rehearsal.rehearse(machine)
    except SluiceError as error:
        return str(error)
    with capture_logs() as logged:
        checkup.Checkup(machine, time.time).run_if_due()
    return "\n".join(str(line["event"]) for line in logged if line["action"] == "not_fit")


def never(around: Around) -> None:
    """Nothing is wrong."""


SETUPS: dict[str, tuple[Callable[[Around], None], dict[str, object], str, str]] = {
    "more CPUs than the engine has": (
        lambda it: setattr(it, "refuses", "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        {},
        "limits",
        "only 2 CPUs",
    ),
    "memory below the minimum": (
        lambda it: setattr(it, "refuses", "Minimum memory limit allowed is 6MB"),
        {"memory_per_slot": 1000},
        "limits",
        "6MB",
    ),
    "registry rate limit": (
        lambda it: it.refused.update({"docker.io/a/app:1": (Obstacle.RATE_LIMIT, "HTTP 429 TOOMANYREQUESTS")}),
        {},
        "images",
        "SLUICE_REGISTRY_CREDENTIALS_FILE",
    ),
    "wrong architecture": (lambda it: setattr(it, "platform", ("linux", "arm64")), {}, "images", "linux/amd64 only"),
    "apps for another architecture": (
        lambda it: it.refused.update({"docker.io/a/app:1": (Obstacle.PLATFORM, "the image is for linux/arm64")}),
        {},
        "images",
        "1 of 1 apps",
    ),
    "no gas": (lambda it: setattr(it, "balance", 0), {}, "gas", "Send some to it"),
    "no stake": (lambda it: setattr(it, "stake", 0), {}, "stake", "sluice worker deposit"),
    "clock ahead": (lambda it: setattr(it, "clock_off", -3600.0), {}, "clock", "Set it, e.g. with NTP"),
    "clock behind": (lambda it: setattr(it, "clock_off", 3600.0), {}, "clock", "Set it, e.g. with NTP"),
    "disk full": (lambda it: setattr(it, "free_bytes", 2**20), {}, "disk", "SLUICE_HOME"),
    "gas above the limit": (never, {"max_fee_gwei": "0.5"}, "money", "SLUICE_MAX_FEE_GWEI"),
    "nothing may be spent": (never, {"daily_spend_cap_wei": 1}, "money", "SLUICE_DAILY_SPEND_CAP_WEI"),
    "less stake allowed than a vote locks": (
        never,
        {"most_stake_nrlc": STAKE - 1},
        "money",
        "SLUICE_MOST_STAKE_NRLC",
    ),
}


@pytest.mark.parametrize("name", SETUPS)
def test_a_wrong_setup_has_its_cause_at_doctor_at_start_and_in_status(
    around: Around, tmp_path: Path, name: str
) -> None:
    spoil, fields, part, words = SETUPS[name]
    spoil(around)
    settings = settings_of(tmp_path, **fields)
    remember(around, settings)
    bad = [finding for finding in doctor.examine(settings) if not finding.ok]
    assert [finding.part for finding in bad] == [part]
    assert words in bad[0].says
    assert words in started(settings)
    shown = machine_status.status(settings)
    assert [finding.part for finding in shown.unfit] == [part]
    assert any(line.startswith(f"not fit    {part}: ") and words in line for line in machine_status.lines(shown))


def test_all_ten_wrong_setups_are_tried_here() -> None:
    elsewhere = {
        "name with a space": test_a_name_that_no_container_can_have_is_refused_by_every_command_with_what_it_may_be,
        "path with a colon": test_a_right_setup_is_fit_everywhere_whatever_its_folder_is_called,
    }
    tried = {*SETUPS, *elsewhere}
    for name in (
        *("name with a space", "more CPUs than the engine has", "memory below the minimum", "path with a colon"),
        *("no gas", "no stake", "clock ahead", "disk full", "registry rate limit", "wrong architecture"),
    ):
        assert name in tried


@pytest.mark.parametrize("folder", ["plain", "a b:c,d"], ids=["plain", "path with a colon"])
def test_a_right_setup_is_fit_everywhere_whatever_its_folder_is_called(
    around: Around, tmp_path: Path, folder: str
) -> None:
    settings = settings_of(tmp_path / folder)
    assert all(finding.ok for finding in doctor.examine(settings))
    assert started(settings) == ""
    assert machine_status.status(settings).unfit == ()
    # What a real engine says of such a folder: tests/integration/workers/test_rehearsal.py.
    assert around.made[-1].outputs.startswith(str(tmp_path / folder))


def test_doctor_says_how_many_slots_there_are_and_what_bounds_them(around: Around, tmp_path: Path) -> None:
    (found,) = (finding for finding in doctor.examine(settings_of(tmp_path)) if finding.part == "limits")
    assert found.says.startswith("1 slots of 2 CPUs and 2.0 GiB, bounded by the engine's memory")
    assert (found.numbers["slots"], found.numbers["slots_bound"]) == (1, "bounded by the engine's memory")
    (found,) = (finding for finding in doctor.examine(settings_of(tmp_path, slots=2)) if finding.part == "limits")
    assert found.says.startswith("2 slots of 1 CPUs and 2.0 GiB, as SLUICE_SLOTS says")


@pytest.mark.parametrize("name", ["my machine", "", "-x", "a:b", "ä"])
def test_a_name_that_no_container_can_have_is_refused_by_every_command_with_what_it_may_be(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadSetting, match=r"SLUICE_WORKER_NAME.*letters, digits"):
        settings_of(tmp_path, worker_name=name)


def test_watching_shows_the_status_again_and_again_until_it_is_interrupted(
    around: Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    around.balance = 0
    monkeypatch.setattr(worker, "settings", lambda: settings_of(tmp_path))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        around.balance = 10**18
        if len(looks) == 2:
            raise KeyboardInterrupt

    # The command's own clock: other threads of this process sleep as well.
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=sleep))
    worker._status(as_json=True, watch=True, every=7.0)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert ([row["part"] for row in first["unfit"]], second["unfit"], looks) == (["gas"], [], [7.0, 7.0])
    worker._status(watch=False)
    assert "This machine holds no task." in capsys.readouterr().out


#: Setups of which one image is the trouble: `images` and their registries are tried by
#: tests/integration/workers/test_images.py.
OF_AN_IMAGE = {"registry rate limit", "wrong architecture", "apps for another architecture"}


@pytest.mark.parametrize("name", [name for name in SETUPS if name not in OF_AN_IMAGE])
def test_a_task_that_comes_to_a_wrong_setup_all_the_same_is_declined_and_leaves_no_vote(
    around: Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spoil, fields, _, _ = SETUPS[name]
    spoil(around)
    settings = settings_of(tmp_path, **fields)
    own = settings_from_pool(settings)
    signed_by = {"scheduler": SCHEDULER_KEY.wallet, "chain_id": CHAIN_ID, "workerpool": WORKERPOOL}
    pool = PoolApi.config(None).model_copy(update=signed_by)  # type: ignore[arg-type]  # `around` answers
    machine = Machine(own, WORKER_KEY, pool, PoolApi.of(settings))
    machine.layout.make()
    checkup.Checkup(machine, time.time).run_if_due()
    sent: list[Report] = []
    context = WorkerContext(machine)
    context.__dict__["engine"] = around.engine()
    context.__dict__["reports"] = SimpleNamespace(
        send=lambda _, report: sent.append(report), later=lambda act: act(), close=lambda: None
    )
    context.__dict__["rpc"] = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr("workers.money.ledger.Ledger._stake", lambda *_: NRlc(STAKE))
    monkeypatch.setattr("workers.sandbox.run_app.run_app", lambda run, **_: run.engine.create(run.spec))
    monkeypatch.setattr("workers.sandbox.run_app.seconds_needed", lambda *_: 30.0)
    free = SimpleNamespace(f_bavail=around.free_bytes, f_frsize=1, f_favail=2**20, f_files=2**20)
    monkeypatch.setattr("workers.sandbox.disk.os.statvfs", lambda _: free)

    # A task without a vote locks no stake.
    modes = (Mode.VOTE,) if name == "less stake allowed than a vote locks" else (Mode.VOTE, Mode.SOLO)
    for number, mode in enumerate(modes, start=1):
        assert not compute(context, assignment(number, mode=mode, image="docker.io/a/app:1"))
        found = context.journal.find(task_id(number))
        assert found is not None
        assert (found.stage, sent[-1].step) == (ReplicateStage.FAILED, Step.FAILED)
        assert cause_code(found.cause) == MACHINE_FAILED
        assert not steps.contribute(context, task_id(number))
        assert not steps.contribute_and_finalize(context, task_id(number))
    assert context.lane_store.count(LaneId(CHAIN_ID, WORKER_KEY.wallet), UNENDED) == 0
    context.close()


def test_a_machine_takes_tasks_again_at_the_first_checkup_that_finds_it_fit_and_a_node_that_is_away_bars_none(
    around: Around, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path)
    machine = Machine(settings_from_pool(settings), WORKER_KEY, PoolApi.config(None), PoolApi.of(settings))  # type: ignore[arg-type]
    machine.layout.make()
    monkeypatch.setattr(checkup, "CHECK_SECONDS", 0.0)
    checks = checkup.Checkup(machine, time.time)

    def look() -> str | None:
        checks.run_if_due()
        return machine.layout.why_unfit()

    assert look() is None
    around.balance, around.stake = 0, 0
    assert "Send some to it" in str(look())
    # It is not known to have changed.
    with monkeypatch.context() as away:
        away.setattr(doctor, "connect", _away)
        assert "Send some to it" in str(look())
    around.balance, around.stake = 10**18, 10**9
    assert look() is None
    with monkeypatch.context() as away:
        away.setattr(doctor, "connect", _away)
        assert look() is None


def _away(_: object) -> None:
    raise RpcUnavailable(what="the node", why="it is away")
