"""A worker votes for no result that the API then refuses: whatever an app leaves, both read it in the same way."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.api.results.result_zip import check_result, repack
from protocol.errors import BadMessage, TaskFailure
from protocol.ethereum.hexbytes import to_hex
from protocol.results import zip_rules
from protocol.results.computed import CALLBACK_BYTES, read_computed
from protocol.results.error_result import Failure
from protocol.results.zip_rules import largest_zip, why_unfit
from tests.unit.workers.assignments import task_id
from workers.data.outputs import ResultLimits, pack
from workers.data.result_zip import ResultZip

LIMITS = ResultLimits(total_bytes=1_000_000, entries=50)

#: Names as a file system takes them: any bytes but `/` and NUL, and those that mean something elsewhere.
NAMES = st.one_of(
    st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name) and name not in {b".", b".."}),
    st.sampled_from(
        [
            b"C:",
            b"c:x",
            b"12:30.txt",
            b"a\\b",
            b"..\\x",
            b"...",
            b"~",
            b"-rf",
            b" ",
            b"a\nb",
            b"\x1b[2J",
            b"CON",
            b"e\xcc\x81",
        ]
    ),
    st.sampled_from([b"computed.json", b"stdout.txt", b"stderr.txt", b"unproven", b"r"]),
)
#: A file's content, a folder, or a link.
TREES = st.recursive(
    st.one_of(st.binary(max_size=50), st.just("link")),
    lambda child: st.dictionaries(NAMES, child, max_size=4),
    max_leaves=10,
)
Tree = dict[bytes, object]


def make(folder: bytes, tree: Tree) -> None:
    Path(os.fsdecode(folder)).mkdir()
    for name, content in tree.items():
        path = folder + b"/" + name
        if isinstance(content, dict):
            make(path, content)
        elif isinstance(content, bytes):
            Path(os.fsdecode(path)).write_bytes(content)
        else:
            Path(os.fsdecode(path)).symlink_to("/etc/passwd")


def answer(folder: Path, *, callback: bool) -> str | None:
    """The digest of the folder's result as the worker and the API compute it; None where the worker refuses it."""
    packed = folder.with_suffix(".zip")
    try:
        digest = pack(task_id(1), folder, packed, callback=callback, result_limits=LIMITS).digest
    except TaskFailure as failed:
        assert failed.cause in {*Failure}
        return None
    checked = check_result(packed, callback=callback)
    assert checked.digest == digest
    if not callback:
        repack(packed, folder.with_suffix(".clean"), checked)
        assert check_result(folder.with_suffix(".clean"), callback=False).digest == digest
    return digest


@given(tree=st.dictionaries(NAMES, TREES, max_size=6), at=st.integers(0, 40))
@example(tree={b"a\\b": b"x"}, at=0)
@example(tree={b"C:": {b"x": b"y"}}, at=0)
def test_what_a_worker_packs_of_any_tree_the_api_takes_with_the_same_digest(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, at: int
) -> None:
    folder = tmp_path_factory.mktemp("tree") / "out"
    make(os.fsencode(folder), tree)
    paths = ["", *(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))]
    wanted = paths[at % len(paths)].encode(errors="surrogateescape").decode(errors="replace")
    if not (folder / "computed.json").is_dir():
        _write(folder, json.dumps({"deterministic-output-path": f"/iexec_out/{wanted}"}))
    answer(folder, callback=False)


def _write(folder: Path, content: str) -> None:
    target = folder / "computed.json"
    target.unlink(missing_ok=True)
    target.write_text(content)


#: What stands in a computed.json: JSON of any shape, most with a key that counts, and text that is none.
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda child: st.one_of(st.lists(child, max_size=3), st.dictionaries(st.text(max_size=5), child, max_size=3)),
    max_leaves=8,
)
OUTPUT_PATHS = st.one_of(
    st.text(max_size=30).map(lambda tail: f"/iexec_out/{tail}"),
    st.sampled_from(
        ["/iexec_out", "/iexec_out/", "/iexec_out/r", "//iexec_out/r", "/iexec_out/../r", "/iexec_outer/r"]
    ),
    st.sampled_from(
        ["/iexec_out/./r", "/iexec_out/r/", "/iexec_out/r/..", "r", "", "/etc/passwd", "/iexec_out/\ud800"]
    ),
    VALUES,
)
CALLBACKS = st.one_of(
    st.binary(max_size=100).map(to_hex), st.sampled_from(["0x", "0X12", "12", "0x1", "0xzz", "", "\ud800", "٣"]), VALUES
)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"deterministic-output-path": OUTPUT_PATHS, "callback-data": CALLBACKS, "x": VALUES}
)
CONTENTS = st.one_of(
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    # Two keys of one name: the last counts, for both sides.
    st.tuples(OUTPUT_PATHS, OUTPUT_PATHS).map(
        lambda two: ("{" + ",".join(f'"deterministic-output-path": {json.dumps(path)}' for path in two) + "}").encode()
    ),
    VALUES.map(lambda value: json.dumps(value).encode("utf-16")),
    st.binary(max_size=100),
    st.sampled_from(
        [b"\xef\xbb\xbf{}", b"[" * 300_000, b'{"a":' * 50_000, b"1" * 5_000, b'{"a": ' + b"1" * 5_000 + b"}", b"NaN"]
    ),
)


@given(content=CONTENTS, callback=st.booleans())
def test_any_computed_json_is_read_alike_on_both_sides_or_refused_by_the_worker(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, callback: bool
) -> None:
    folder = tmp_path_factory.mktemp("tree") / "out"
    folder.mkdir()
    (folder / "r").write_bytes(b"x")
    (folder / "computed.json").write_bytes(content)
    answer(folder, callback=callback)


@given(content=CONTENTS, callback=st.booleans())
def test_any_computed_json_names_a_path_inside_or_data_that_a_transaction_carries(
    content: bytes, callback: bool
) -> None:
    try:
        computed = read_computed(content, callback=callback)
    except BadMessage:
        return
    if callback:
        assert computed.output_path is None
        assert computed.callback_data is not None
        assert len(computed.callback_data) <= 2 * CALLBACK_BYTES + 2
    else:
        assert computed.callback_data is None
        assert computed.output_path is not None
        assert not {"..", ".", ""} & set(computed.output_path.split("/")) or computed.output_path == ""


def test_a_time_of_day_in_a_name_is_no_harm_and_a_drive_is() -> None:
    assert why_unfit("log 12:30.txt") is None
    assert why_unfit("a/C:/b") is None
    assert why_unfit("C:/b") is not None


def test_paths_that_are_too_long_together_fail_the_task_before_the_vote(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    deep = folder / ("d" * 250) / ("d" * 250) / ("d" * 250) / ("d" * 200)
    deep.mkdir(parents=True)
    for number in range(2_150):
        (deep / f"{number}").touch()
    _write(folder, json.dumps({"deterministic-output-path": "/iexec_out"}))
    with pytest.raises(TaskFailure) as caught:
        pack(task_id(1), folder, tmp_path / "zip", callback=False, result_limits=ResultLimits(total_bytes=10**6))
    assert caught.value.cause == Failure.OUTPUT_ZIP


def test_no_zip_of_a_result_is_larger_than_an_upload_may_be(tmp_path: Path) -> None:
    # Incompressible, and many entries with long paths.
    content = b"".join(zlib.compress(bytes([number % 251]) * 1000 + os.urandom(1000)) for number in range(100))
    with ResultZip(tmp_path / "zip") as target:
        for number in range(20):
            with target.file(f"{'d' * 900}/{number}", len(content)) as write:
                write(content)
    assert (tmp_path / "zip").stat().st_size <= largest_zip(20 * len(content))
    assert largest_zip(0) >= 2 * zip_rules.DIRECTORY_BYTES
