"""Images of strangers on a real engine: only what was fetched for the deal is run, within bounds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from config.settings import Settings
from ops.stack import tools
from protocol.results.error_result import UNCLEAR_END, Failure, cause_code, error_digest
from tests.faulty import Answer
from tests.faulty.registry import blobs_of, error, layer, registry, sparse_layer
from tests.integration.workers.conftest import IMAGE, open_bench
from tests.integration.workers.scripts import built, sha256
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import wait_until
from workers.context import Machine, WorkerContext
from workers.data.layout import Layout
from workers.sandbox import spec
from workers.sandbox.engine.container import Engine
from workers.sandbox.images import image, image_words
from workers.sandbox.images.image_store import REPOSITORY, ImageStore
from workers.sandbox.images.image_words import MOST_ENTRIES
from workers.sandbox.spec import LABEL_GPUS, LABEL_TASK, LABEL_WALLET
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage

OUR_LABELS = {text for name, text in vars(spec).items() if name.startswith("LABEL_")}


def app(says: str, config: Mapping[str, object] | None = None) -> dict[str, bytes]:
    """An image whose result is this word. `config`: what it says of itself besides."""
    script = (
        f"#!/bin/busybox sh\necho {says} > /iexec_out/r\n"
        'echo \'{"deterministic-output-path": "/iexec_out/r"}\' > /iexec_out/computed.json\n'
    )
    return blobs_of(layer({"bin/busybox": tools.busybox().read_bytes(), "app": script.encode()}), config=config)


def manifest_digest(blobs: dict[str, bytes]) -> str:
    return hashlib.sha256(blobs["manifest"]).hexdigest()


def soon() -> int:
    return int(time.time()) + 25


def run(context: WorkerContext, name: str, number: int = 1, **fields: object) -> Replicate:
    compute(context, assignment(number, image=name, **{"contribution_deadline": soon(), **fields}))
    found = context.journal.find(task_id(number))
    assert found is not None
    return found


@contextmanager
def bench(settings: Settings, **changes: object) -> Iterator[WorkerContext]:
    context = open_bench(settings.model_copy(update=changes))
    try:
        yield context
    finally:
        for _, container in context.engine.containers_of(WORKER_KEY.wallet):
            context.engine.remove(container)
        # Its own only: other tests have images on the same engine.
        for name in stored(context.layout):
            context.engine.remove_image(name)
        context.close()
        context.machine.api.close()


@pytest.mark.parametrize("way", ["name", "full name", "id", "short id", "digest"])
def test_a_private_image_of_the_machines_owner_is_never_run(settings: Settings, engine_host: str, way: str) -> None:
    built(engine_host, "sluice-test/private:1", f"FROM {IMAGE}\nRUN echo secret > /secret\n")
    with closing(DockerClient(base_url=engine_host)) as client:
        image_id = str(client.images.get("sluice-test/private:1").id)
    name = {
        "name": "sluice-test/private:1",
        "full name": "docker.io/sluice-test/private:1",
        "id": image_id,
        "short id": image_id.removeprefix("sha256:")[:12],
        "digest": f"sluice-test/private@{image_id}",
    }[way]
    params = json.dumps({"iexec_args": "cat /secret"})
    with bench(settings) as context:
        found = run(context, name, params=params)
        assert found.container_id is None
    assert found.exit_code is None


def test_the_owners_image_of_the_same_name_is_neither_run_nor_renamed(settings: Settings, engine_host: str) -> None:
    with registry(lambda *_: None, blobs=app("theirs")) as host, closing(DockerClient(base_url=engine_host)) as client:
        mine = client.images.get(IMAGE)
        mine.tag(f"{host}/app", "1")
        with bench(settings) as context:
            assert run(context, f"{host}/app:1").digest == sha256(b"theirs\n")
        assert client.images.get(f"{host}/app:1").id == mine.id
        client.images.remove(f"{host}/app:1")


def test_the_owners_docker_logins_stay_unused_and_sluices_own_are_sent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    for number, own in enumerate([False, True]):
        with registry(lambda *_: None, blobs=app("x"), hear=seen.append, basic=own) as host:
            logins = tmp_path / f"docker{number}" / "config.json"
            logins.parent.mkdir()
            logins.write_text(json.dumps({"auths": {host: {"auth": "b3duZXI6c2VjcmV0"}}}))
            monkeypatch.setenv("DOCKER_CONFIG", str(logins.parent))
            changes = {"registry_credentials_file": logins} if own else {}
            with bench(settings, home=tmp_path / f"{number}", **changes) as context:
                assert run(context, f"{host}/app:1").digest == sha256(b"x\n")
        assert ("Basic b3duZXI6c2VjcmV0" in seen) is own, seen


@pytest.mark.parametrize(
    "bomb", [layer({"app": bytes(64 * 2**20)}), sparse_layer(64 * 2**20)], ids=["packed", "sparse"]
)
def test_a_bomb_of_an_image_is_stopped_before_the_engine_sees_it(
    settings: Settings, engine_host: str, bomb: bytes
) -> None:
    blobs = blobs_of(bomb)
    with registry(lambda *_: None, blobs=blobs) as host, bench(settings, image_max_bytes=8 * 2**20) as context:
        found = run(context, f"{host}/app:1")
        assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
        assert list((context.layout.root / "images").iterdir()) == []
    with closing(DockerClient(base_url=engine_host)) as client:
        assert all(found.attrs["Size"] < 64 * 2**20 for found in client.images.list(REPOSITORY))


def test_what_an_image_says_to_the_engine_and_to_programs_beside_it_reaches_no_container(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    start = Engine.start

    def look_and_start(engine: Engine, container: str, *handed: Any) -> None:
        seen.append(engine.inspect(container)["Config"])
        start(engine, container, *handed)

    monkeypatch.setattr(Engine, "start", look_and_start)
    says = {
        "Healthcheck": {"Test": ["CMD", "/bin/busybox", "touch", "/iexec_out/ran"], "Interval": 10**6},
        "Labels": {LABEL_GPUS: "0", LABEL_WALLET: "0x", "docker-job.command": "reboot"},
        # Engines are written in Go, which takes this letter for an s.
        "label\u017f": {"docker-job.user": "root"},
    }
    with registry(lambda *_: None, blobs=app("x", says)) as host, bench(settings) as context:
        assert run(context, f"{host}/app:1").digest == sha256(b"x\n")
    (config,) = seen
    assert {"docker-job.command", "docker-job.user"} <= set(config["Labels"])
    ours = {key: text for key, text in config["Labels"].items() if text}
    assert {LABEL_WALLET, LABEL_TASK} <= set(ours) <= OUR_LABELS
    assert ours[LABEL_WALLET] == WORKER_KEY.wallet
    assert config["Healthcheck"]["Test"] == ["NONE"]


@pytest.mark.parametrize("name", ["Env", "Volumes"])
def test_an_image_with_so_many_entries_that_an_engine_would_be_busy_with_them_is_declined(
    settings: Settings, name: str
) -> None:
    number = MOST_ENTRIES + 1
    many = [f"A{i}=1" for i in range(number)] if name == "Env" else {f"/{i}": {} for i in range(number)}
    with registry(lambda *_: None, blobs=app("x", {name: many})) as host, bench(settings) as context:
        found = run(context, f"{host}/app:1")
        assert (found.stage, cause_code(found.cause), found.container_id) == (
            ReplicateStage.FAILED,
            UNCLEAR_END,
            None,
        )


def test_an_image_whose_volumes_the_engine_would_fill_with_more_than_an_app_may_write_is_declined(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so while the container is made: nothing could be killed for it yet."""
    monkeypatch.setattr(image_words, "SCRATCH_BYTES", 16 * 2**20)
    volumes: dict[str, object] = {"Volumes": {f"/bin/../{place}": {} for place in range(20)}}
    with registry(lambda *_: None, blobs=app("x", volumes)) as host, bench(settings) as context:
        found = run(context, f"{host}/app:1")
        assert (found.stage, cause_code(found.cause), found.container_id) == (
            ReplicateStage.FAILED,
            UNCLEAR_END,
            None,
        )
        monkeypatch.undo()
        assert run(context, f"{host}/app:1", 2).digest == sha256(b"x\n")


def test_an_image_that_the_engine_does_not_take_is_fetched_once_and_held_against_nobody(settings: Settings) -> None:
    """Go's reader, and no other, looks at the sums of an archive's headers."""
    spoilt = bytearray(layer({"app": b"x"}))
    spoilt[148:155] = b"0000001"
    asked: list[str] = []
    with (
        registry(lambda path, _: asked.append(path), blobs=blobs_of(bytes(spoilt))) as host,
        bench(settings) as context,
    ):
        found = run(context, f"{host}/app:1")
        assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
        assert sum("/manifests/" in path for path in asked) == 1
        assert list((context.layout.root / "images").iterdir()) == []


def test_an_image_that_is_too_large_for_every_machine_is_the_tasks_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Machine.images.fget  # type: ignore[attr-defined] # a property of the class

    def small(machine: Machine) -> image.ImageRules:
        found: image.ImageRules = rules(machine)
        return replace(found, registry=replace(found.registry, pool_max_bytes=2**20))

    monkeypatch.setattr(Machine, "images", property(small))
    with registry(lambda *_: None, blobs=app("x")) as host, bench(settings) as context:
        assert run(context, f"{host}/app:1").digest == error_digest(Failure.APP_IMAGE)


def test_no_word_of_a_registry_leads_into_the_machines_network(settings: Settings) -> None:
    knocks: list[str] = []
    with registry(lambda path, _: knocks.append(path) or Answer(200)) as inside:  # type: ignore[func-returns-value]
        realm = f'Bearer realm="http://{inside}/admin/delete?everything=yes",service="x"'
        tricks = [
            Answer(401, headers=(("www-authenticate", realm),)),
            Answer(307, headers=(("location", f"http://{inside}/admin"),)),
        ]
        for number, trick in enumerate(tricks):
            with registry(lambda *_, trick=trick: trick) as host:
                # The registry alone is named by the machine's owner.
                changes = {"allow_private_downloads": False, "image_registries": host}
                with bench(settings, **changes) as context:
                    found = run(context, f"{host}/app:{number}", number + 1)
                    assert cause_code(found.cause) in {UNCLEAR_END, Failure.APP_IMAGE}
        with bench(settings, allow_private_downloads=False) as context:
            assert run(context, f"{inside}/app:1", 3).container_id is None
            assert run(context, "169.254.169.254/latest/meta-data:1", 4).container_id is None
            assert run(context, "localhost:1/x:1", 5).container_id is None
    assert knocks == []


def test_the_digest_in_the_name_and_the_apps_checksum_count_before_the_tag(settings: Settings) -> None:
    blobs = app("x")
    asked: list[str] = []
    with registry(lambda path, _: asked.append(path), blobs=blobs) as host, bench(settings) as context:
        good = manifest_digest(blobs)
        assert run(context, f"{host}/app:1", 1, image_checksum=f"0x{good}").digest == sha256(b"x\n")
        assert asked[0].endswith(f"/manifests/sha256:{good}")
        assert run(context, f"{host}/app@sha256:{good}", 2).digest == sha256(b"x\n")
        other = run(context, f"{host}/app@sha256:{'ab' * 32}", 3)
        assert (other.stage, cause_code(other.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)


def test_a_checksum_that_is_no_images_digest_breaks_no_app(settings: Settings) -> None:
    absent = error(404, "MANIFEST_UNKNOWN")
    with (
        registry(
            lambda path, _: absent if "sha256:ab" in path and "/manifests/" in path else None, blobs=app("x")
        ) as host,
        bench(settings) as context,
    ):
        assert run(context, f"{host}/app:1", image_checksum="0x" + "ab" * 32).digest == sha256(b"x\n")


def test_a_tag_that_has_moved_is_followed_and_a_registry_that_is_away_keeps_nobody_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "FRESH_SECONDS", -1.0)
    blobs = app("old")
    down: list[Answer] = []
    with registry(lambda *_: down[0] if down else None, blobs=blobs) as host, bench(settings) as context:
        assert run(context, f"{host}/app:1", 1).digest == sha256(b"old\n")
        blobs.update(app("new"))
        assert run(context, f"{host}/app:1", 2).digest == sha256(b"new\n")
        down.append(Answer(503))
        assert run(context, f"{host}/app:1", 3).digest == sha256(b"new\n")


def stored(layout: Layout) -> set[str]:
    """Names on the engine of the images that this machine fetched."""
    records = ImageStore(layout.root)._root.glob("*.json")
    return {json.loads(record.read_text())["name"] for record in records}


def test_images_beyond_the_budget_are_removed_but_never_one_that_is_in_use(
    settings: Settings, engine_host: str
) -> None:
    with (
        registry(lambda *_: None, blobs=app("one")) as first,
        registry(lambda *_: None, blobs=app("two")) as second,
        bench(settings, image_disk_bytes=1) as context,
        closing(DockerClient(base_url=engine_host)) as client,
    ):
        assert run(context, f"{first}/app:1", 1).digest == sha256(b"one\n")
        (kept,) = stored(context.layout)
        used = client.containers.create(kept)
        assert run(context, f"{second}/app:1", 2).digest == sha256(b"two\n")
        assert client.images.get(kept)
        used.remove(force=True)
        both = stored(context.layout)

        def removed() -> bool:
            ImageStore(context.layout.root).shrink(context.engine, 1, "")
            # Other tests have images on the same engine.
            return not both & {tag for found in client.images.list(REPOSITORY) for tag in found.tags}

        # The engine says for a moment yet that a container uses them, one that was removed just now.
        wait_until(removed, 30, what="both images to be removed")
