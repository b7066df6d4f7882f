"""MongoDB's messages, as the router of the local stack reads and writes them."""

from __future__ import annotations

import struct

import bson

from ops.stack.clusters import wire


def message(opcode: int, content: bytes) -> bytes:
    return struct.pack("<iiii", 16 + len(content), 7, 0, opcode) + content


def test_a_command_with_documents_behind_it_goes_on_under_another_name_with_the_same_documents() -> None:
    rows = b"".join(map(bson.encode, ({"_id": 1}, {"_id": 2})))
    section = b"\x01" + struct.pack("<i", 4 + len(b"documents\0") + len(rows)) + b"documents\0" + rows
    came = wire.parse(message(2013, struct.pack("<i", 0) + b"\0" + bson.encode({"insert": "t", "$db": "d"}) + section))
    assert (came.name, came.database) == ("insert", "d")
    assert wire.documents(came.rest) == {"documents": [{"_id": 1}, {"_id": 2}]}
    sent = wire.parse(came.with_body({"clusterInsert": "t", "$db": "d"}).to_bytes())
    assert (sent.request_id, sent.name, sent.rest) == (7, "clusterInsert", section)


def test_the_first_word_of_a_client_is_answered_in_its_own_form() -> None:
    query = struct.pack("<i", 0) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + bson.encode({"ismaster": 1})
    came = wire.parse(message(2004, query))
    assert (came.name, came.database) == ("ismaster", "admin")
    length, _, answers, opcode = struct.unpack_from("<iiii", answer := came.answer({"ok": 1.0}))
    assert (length, answers, opcode) == (len(answer), 7, 1)
    assert bson.decode(answer[36:]) == {"ok": 1.0}
