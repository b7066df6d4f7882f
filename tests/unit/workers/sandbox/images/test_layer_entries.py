"""Layers of images by what an engine makes of them on disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage
from tests.faulty.registry import layer, sparse_layer
from workers.sandbox.images import layer_entries
from workers.sandbox.images.layer_entries import LayerEntries

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
entries = st.lists(
    st.tuples(
        st.text("abé", min_size=1, max_size=5).map(lambda part: part * 40),
        st.sampled_from(KINDS),
        st.integers(0, 1500),
    ),
    max_size=5,
)


def tar_of(members: list[tuple[str, bytes, int]], kind: int = tarfile.GNU_FORMAT, **records: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=kind) as tar:
        for name, what, size in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.pax_headers = what, dict(records)
            entry.size = size if entry.isreg() else 0
            entry.linkname = "elsewhere" if what in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            tar.addfile(entry, io.BytesIO(b"S" * size))
    return content.getvalue()


def read(content: bytes, step: int = 2**18) -> int:
    found = LayerEntries()
    for at in range(0, len(content), step):
        found.feed(content[at : at + step])
    found.end()
    return found.count


def patched(content: bytes, at: int, field: bytes) -> bytes:
    return content[:at] + field + content[at + len(field) :]


@given(members=entries, kind=st.sampled_from(FORMATS), step=st.integers(1, 3000))
def test_every_archive_that_a_builder_writes_is_read_wherever_it_is_cut(
    members: list[tuple[str, bytes, int]], kind: int, step: int
) -> None:
    try:
        content = tar_of(members, kind)
    except ValueError:
        # The oldest format has no room for such a name.
        return
    assert read(content, step) == len(members)


FILE = tar_of([("app", tarfile.REGTYPE, 700)])
OLD = tar_of([("app", tarfile.AREGTYPE, 700)])
HOSTILE = {
    "sparse by its records": sparse_layer(2**40),
    "sparse by old records": tar_of([("app", tarfile.REGTYPE, 9)], tarfile.PAX_FORMAT, **{"GNU.sparse.map": "0,1"}),
    "sparse by its header": patched(FILE, 156, b"S"),
    "sparse behind a size that two readers take differently": patched(FILE, 124, b"0000000 512\0"),
    "sparse behind a folder with content": patched(OLD, 0, b"app/"),
    "sparse behind a long name of a folder": tar_of([("d" * 120 + "/", tarfile.AREGTYPE, 600)]),
    "negative size": patched(FILE, 124, b"\xff" * 12),
    "more than 63 bits": patched(FILE, 124, b"\x80\0\0\0\x80" + b"\0" * 7),
    "size of a record that is none": tar_of([("app", tarfile.REGTYPE, 9)], tarfile.PAX_FORMAT, size="-5", comment="x"),
    "records without end": patched(patched(FILE, 156, b"x"), 124, b"77777777777\0"),
    "records that are none": patched(FILE, 156, b"x"),
    "goes on after its end": bytes(512) + FILE,
    **{f"packed as {name}": pack(FILE) for name, pack in (("bzip2", bz2.compress), ("xz", lzma.compress))},
    "packed as gzip, with a header that is one of a file as well": gzip.compress(FILE)[:3]
    + b"\x04"
    + bytes(6)
    + (600).to_bytes(2, "little")
    + FILE,
    "packed as zstd": b"\x28\xb5\x2f\xfd" + FILE[4:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_layer_that_becomes_another_on_disk_than_its_bytes_are_is_refused(name: str) -> None:
    with pytest.raises(BadMessage):
        read(HOSTILE[name])


def test_what_follows_the_end_of_an_archive_is_ignored_as_engines_do() -> None:
    assert read(FILE + sparse_layer(2**40)) == 1


def test_more_files_than_a_machine_takes_are_refused_and_folders_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_entries, "MOST_ENTRIES", 3)
    assert read(layer({"a": b"", "b": b"x" * 600, "c": b""})) == 3
    with pytest.raises(BadMessage, match="more than 3 files"):
        read(tar_of([(str(n), tarfile.DIRTYPE, 0) for n in range(4)]))
