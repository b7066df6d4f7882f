"""Layers of images: unpacked with a bound, and checked against what the image says of itself."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from protocol.errors import BadMessage
from workers.data.registry import Blob, read_credentials
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image_store import (
    ImageStore,
    StoredImage,
    archive,
    engine_name,
    read_config,
    unpacked_size,
)
from workers.sandbox.images.layer_entries import LayerEntries

same_folder = drawn(suppress_health_check=[HealthCheck.function_scoped_fixture])


def size_of(folder: Path, sent: bytes, plain: bytes, most: int, *, packed: bool = True) -> int | None:
    file = folder / "layer"
    file.write_bytes(sent)
    digest = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    blob = Blob("sha256:" + "0" * 64, len(sent), gzip=packed)
    # What the bytes mean: test_layer_entries.py.
    return unpacked_size(
        file, blob, digest, most, lambda: None, cast("LayerEntries", SimpleNamespace(feed=len, end=bool))
    )


@same_folder
@given(
    parts=st.lists(st.binary(max_size=500).map(lambda part: part * 400), min_size=1, max_size=4), packed=st.booleans()
)
def test_a_layer_is_measured_unpacked_whatever_it_is_made_of(tmp_path: Path, parts: list[bytes], packed: bool) -> None:
    plain = b"".join(parts)
    sent = b"".join(gzip.compress(part) for part in parts) if packed else plain
    assert size_of(tmp_path, sent, plain, len(plain), packed=packed) == len(plain)
    if plain:
        assert size_of(tmp_path, sent, plain, len(plain) - 1, packed=packed) is None


@same_folder
@given(plain=st.binary(min_size=1, max_size=3000), cut=st.integers(1, 20))
def test_a_layer_that_is_cut_short_or_another_is_refused(tmp_path: Path, plain: bytes, cut: int) -> None:
    sent = gzip.compress(plain)
    for wrong in (sent[:-cut], gzip.compress(plain + b"x"), b"x" + sent):
        with pytest.raises(BadMessage):
            size_of(tmp_path, wrong, plain, 2**20)


def test_a_gigabyte_in_a_megabyte_is_stopped_early(tmp_path: Path) -> None:
    sent = gzip.compress(bytes(2**26))
    pieces = 0

    def count() -> None:
        nonlocal pieces
        pieces += 1

    file = tmp_path / "layer"
    file.write_bytes(sent)
    assert unpacked_size(file, Blob("", len(sent), gzip=True), "", 2**22, count, LayerEntries()) is None
    assert pieces <= 5


@given(
    st.one_of(
        st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_a_configuration_of_any_shape_is_read_or_refused(content: bytes) -> None:
    with pytest.raises(BadMessage):
        read_config(content)


def test_an_archive_is_what_docker_load_takes(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"x" * 700)
    blob = Blob("sha256:" + "ab" * 32, 700)
    name = engine_name("sha256:" + "cd" * 32)
    content = b"".join(archive(name, b"{}", (blob, blob), {blob.digest: tmp_path / "layer"}))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert tar.getnames() == ["manifest.json", "cd" * 32 + ".json", "ab" * 32 + ".tar"]
        index = tar.extractfile("manifest.json")
        assert index is not None
        (entry,) = json.load(index)
    assert entry == {"Config": "cd" * 32 + ".json", "RepoTags": [name], "Layers": ["ab" * 32 + ".tar"] * 2}


def test_an_image_that_a_tag_has_moved_away_from_is_counted_and_the_first_to_go(tmp_path: Path) -> None:
    """Else a name whose tag moves each hour would fill the engine's disk with images that nothing removes."""
    store, engine = ImageStore(tmp_path), SimpleNamespace(removed=list[str]())
    engine.remove_image = lambda name: engine.removed.append(name) or True
    store.put(StoredImage("other", "sluice-image:c", "sha256:c", 10, 0.0))
    for name in ("a", "b"):
        store.put(StoredImage("wanted", f"sluice-image:{name}", f"sha256:{name}", 10, 0.0))
    found = store.find("wanted")
    assert found is not None
    assert found.name == "sluice-image:b"
    store.shrink(cast("Engine", engine), 30, "")
    assert engine.removed == []
    store.shrink(cast("Engine", engine), 20, "")
    assert engine.removed == ["sluice-image:a"]
    # The present one keeps its record.
    store.put(StoredImage("wanted", "sluice-image:b", "sha256:b", 10, 1.0))
    store.shrink(cast("Engine", engine), 0, "")
    assert sorted(engine.removed) == ["sluice-image:a", "sluice-image:b", "sluice-image:c"]
    assert list((tmp_path / "images").iterdir()) == []


def test_logins_are_found_by_registry() -> None:
    auths = {
        "https://index.docker.io/v1/": {"auth": "a"},
        "ghcr.io": {"auth": "b"},
        "x.io:5000": {},
        "y.io:5": {"auth": "c"},
    }
    assert read_credentials(json.dumps({"auths": auths})) == {"docker.io": "a", "ghcr.io": "b", "y.io:5": "c"}
