"""What docs/worker-protocol.md must say, made from the code: tables of fields, a message as it is sent, test vectors.

python -m tests.worker_protocol        writes the test vectors into the page anew
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from kombu import Connection, Exchange, Producer, Queue
from kombu.message import Message
from pydantic import BaseModel

from chain.contracts import calls
from config.celery_apps import pool_app
from config.settings import read_settings
from pipeline.broker import segments
from protocol import signin
from protocol.assignment import sign_assignment, signed_message
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.ethereum.typed_data import typed_data_digest
from protocol.poco.authorization import authorization_hash, sign_authorization
from protocol.poco.ids import task_id
from protocol.poco.seal import result_hash, result_seal
from protocol.results.args import split_args
from protocol.results.computed import read_computed, result_digest
from protocol.results.environment import input_file_name
from protocol.results.error_result import Failure, error_computed, error_digest, error_text
from protocol.results.params import read_params
from protocol.types import ZERO_ADDRESS, Contract, DealId, Hash32, Signature, TaskId, Timestamp
from protocol.wire import Assignment, Dataset, Mode, ResultLink
from tests.documents import ROOT

PAGE = ROOT / "docs/worker-protocol.md"
#: Around the vectors in the page.
_VECTORS = re.compile(r"(?<=\n## Test vectors\n).*?```\n(.*?)```", re.DOTALL)
#: Regular expressions of a JSON schema, as the page names them.
_PATTERNS = {
    "^0x[0-9a-f]{64}$": "hex32",
    "^0x[0-9a-f]{40}$": "address",
    "^0x[0-9a-fA-F]{130}$": "signature",
    "^[0-9a-f]{32}$": "machine id",
    r"^[\w.:-]+$": "host",
}


# -- tables ------------------------------------------------------------------------------------------------------------


def table(heading: str) -> list[tuple[str, ...]]:
    """Cells of the first table below a heading, without its own two lines; back quotes removed."""
    text = PAGE.read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the page has no heading {heading!r}"
    lines = found[1][found[1].find("\n|") + 1 :].splitlines() if "\n|" in found[1] else []
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[2:])
    return [tuple(cell.strip().replace("`", "") for cell in row.strip("|").split("|")) for row in rows]


def fields(model: type[BaseModel]) -> dict[str, str]:
    """Each field of a message with its type as the page writes it."""
    schema = model.model_json_schema()
    needed = schema.get("required", [])
    return {name: _type(item) + ("" if name in needed else ", optional") for name, item in schema["properties"].items()}


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(item) for item in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " or ".join(f'"{item}"' for item in schema["enum"])
    if "pattern" in schema:
        return _PATTERNS[schema["pattern"]]
    match schema["type"]:
        case "integer":
            return _numbers(schema)
        case "string" if "maxLength" in schema:
            return f"text of {schema.get('minLength', 0)} to {schema['maxLength']}"
        case "string":
            return "text"
        case "array":
            most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
            return f"list of {_type(schema['items'])}{most}"
        case other:
            return str(other)


def _numbers(schema: Mapping[str, Any]) -> str:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", 0) - 1)
    if most == 2**63 - 1:
        return "whole" if least == 0 else "whole, not 0"
    return f"{least} to {most}"


# -- a message as the scheduler publishes it ---------------------------------------------------------------------------


def published(argument: str) -> Message:
    """The message `worker.reveal` with this argument, as it comes out of a worker's queue."""
    wallet = WORKER.wallet
    segment = segments.reveal(pool_app(read_settings()), wallet, TaskId(argument))
    name = f"w.{wallet}"
    with Connection("memory://") as connection:
        channel = connection.channel()
        queue = Queue(f"{name}.tx", Exchange(name, "direct"), f"{name}.tx", channel=channel)
        queue.declare()
        message: Any = segment.message
        message.apply_async(producer=Producer(channel), declare=[], expiration=segments.EXPIRES)
        found = queue.get()
        assert isinstance(found, Message)
        return found


# -- test vectors ------------------------------------------------------------------------------------------------------

WORKER, SCHEDULER = Key(b"\x11" * 32), Key(b"\x22" * 32)
CHAIN_ID, WORKERPOOL = 31337, Contract("0x" + "bb" * 20)
DEAL, INDEX = DealId("0x" + "d1" * 32), 3
TASK = task_id(DEAL, INDEX)
#: Files of a result, by path below /iexec_out: names whose order differs between UTF-16 and UTF-8, and a sub-folder.
FILES = {"out/\uff5e.txt": "c", "out/\U0001f600.txt": "b", "out/a.txt": "a", "out/deeper/x.txt": "x", "one.txt": "1\n"}
ARGUMENTS = ("a  b 'c d' \"e f\"", "x'y z'w", 'say \\"hi\\" \\', "unclosed 'quote", "tab\there", "'' \"\" z")
PARAMS = (
    '{"iexec_args":"a b","iexec_input_files":["https://x.example/1"]}',
    '{"iexec_args":1.50,"iexec_args":true}',
    '{"iexec_args":"a"} trailing',
    '{"iexec_args":"a","unknown":1}',
    '["a"]',
    "plain words",
    " {}",
)


def vectors() -> str:
    """The test vectors of the page, JSON."""
    return json.dumps(_vectors(), indent=1)


def _vectors() -> dict[str, Any]:
    nonce = Hash32("0x" + "5a" * 32)
    challenge = signin.SignIn(CHAIN_ID, WORKERPOOL, WORKER.wallet, nonce, Timestamp(4_000_000_000))
    digest = Hash32("0x" + "ab" * 32)
    unsigned = Assignment(
        task_id=TASK,
        deal_id=DEAL,
        index=INDEX,
        mode=Mode.VOTE,
        trust=3,
        tag="0x" + "0" * 64,
        wallet=WORKER.wallet,
        app="0x" + "aa" * 20,
        image="docker.io/library/hello:1",
        image_checksum="0x" + "cc" * 32,
        dataset=Dataset(address="0x" + "da" * 20, url="https://x.example/d", checksum="0x" + "ee" * 32),
        params='{"iexec_args":"\\u00e9 \t\x01\x7f / \u2028 \U0001f600"}\n',
        callback=ZERO_ADDRESS,
        bot_first=2,
        bot_size=5,
        category_seconds=300,
        contribution_deadline=4_000_002_100,
        final_deadline=4_000_003_000,
        authorization=sign_authorization(SCHEDULER, WORKER.wallet, TASK),
        enclave_challenge=ZERO_ADDRESS,
    )
    authorization = Signature(unsigned.authorization)
    vote = result_hash(TASK, digest), result_seal(WORKER.wallet, TASK, digest)
    link = ResultLink(storage="ipfs", location="/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG")
    results = to_hex(link.model_dump_json().encode())
    return {
        "wallets": {"worker": WORKER.wallet, "scheduler": SCHEDULER.wallet},
        "sign_in": {
            "typed_data": challenge.typed_data,
            "eip712_digest": to_hex(typed_data_digest(challenge.typed_data)),
            "signature": challenge.sign(WORKER),
        },
        "assignment": {
            "chain_id": CHAIN_ID,
            "workerpool": WORKERPOOL,
            "assignment": sign_assignment(SCHEDULER, unsigned, CHAIN_ID, WORKERPOOL).model_dump(mode="json"),
            "signed_text": signed_message(unsigned, CHAIN_ID, WORKERPOOL).decode(),
            "authorization_hash": authorization_hash(WORKER.wallet, TASK),
        },
        "vote": {"task_id": TASK, "digest": digest, "result_hash": vote[0], "result_seal": vote[1]},
        "calldata": {
            "contribute": calls.contribute(TASK, *vote, authorization),
            "reveal": calls.reveal(TASK, digest),
            "results": results,
            "contributeAndFinalize": calls.contribute_and_finalize(TASK, digest, results, authorization),
        },
        "results": {
            "files": FILES,
            "digests": [
                {"computed": computed, "digest": _digest(computed)}
                for computed in (
                    {"deterministic-output-path": "/iexec_out/out"},
                    {"deterministic-output-path": "/iexec_out/one.txt"},
                    {"deterministic-output-path": "/iexec_out"},
                    {"callback-data": "0xabcdef"},
                    {"callback-data": "0xabc"},
                )
            ],
        },
        "errors": [
            {"cause": cause, "text": error_text(cause).decode(), "digest": error_digest(cause)}
            for cause in (Failure.APP_IMAGE, Failure.DATASET_CHECKSUM, Failure.APP)
        ],
        "error_computed": error_computed(),
        "arguments": [{"line": line, "arguments": split_args(line)} for line in ARGUMENTS],
        "params": [
            {"params": text, "args": (found := read_params(text)).args, "input_files": found.input_files}
            for text in PARAMS
        ],
        "input_file": {"url": "https://x.example/1", "name": input_file_name("https://x.example/1")},
    }


def _digest(computed: dict[str, str]) -> Hash32:
    sums = {path: hashlib.sha256(content.encode()).digest() for path, content in FILES.items()}
    read = read_computed(json.dumps(computed).encode(), callback="callback-data" in computed)
    return result_digest(read, sums, {"", "out", "out/deeper"})


def page_vectors() -> str:
    """The test vectors as the page has them."""
    found = _VECTORS.search(PAGE.read_text())
    assert found, "the page has no test vectors"
    return found[1]


def main() -> None:
    """Write the test vectors into the page."""
    text = PAGE.read_text()
    found = _VECTORS.search(text)
    assert found, "the page has no place for test vectors"
    PAGE.write_text(text[: found.start(1)] + vectors() + "\n" + text[found.end(1) :])


if __name__ == "__main__":
    main()
