"""The scheduler's signature over a whole assignment, so that what is run cannot be changed on the way to a machine.

message     Sluice assignment
            chain <chain id>
            workerpool <address>
            0x<keccak of the assignment as canonical JSON, without `signature`>
signature   EIP-191 `personal_sign` of that text, by the wallet that signs authorizations (the workerpool's owner)

Canonical JSON: keys in order, no white space, UTF-8, `null` for what is absent. JavaScript's `JSON.stringify` writes
the same bytes once the keys are sorted.
"""

from __future__ import annotations

import json

from protocol.errors import Refused
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import Key, recover_message_wallet
from protocol.types import Signature, Wallet
from protocol.wire import Assignment


def most_seconds(category_seconds: int) -> float:
    """Seconds from the assignment to the report COMPUTED, after which the scheduler gives the task to another machine:
    twice the category's time, for the downloads, and a minute.
    """
    return 2 * category_seconds + 60.0


def sign_assignment(key: Key, assignment: Assignment, chain_id: int, workerpool: str) -> Assignment:
    """The assignment, signed by the workerpool owner's key for this workerpool and chain. Called by the scheduler."""
    return assignment.model_copy(
        update={"signature": key.sign_message(signed_message(assignment, chain_id, workerpool))},
    )


def recover_assignment_signer(assignment: Assignment, chain_id: int, workerpool: str) -> Wallet:
    """The wallet that signed the assignment as it is. Raises Refused without a valid signature. Called by workers."""
    if assignment.signature is None:
        raise Refused(why="the assignment is not signed: the pool's scheduler is of an older release")
    return recover_message_wallet(signed_message(assignment, chain_id, workerpool), Signature(assignment.signature))


def signed_message(assignment: Assignment, chain_id: int, workerpool: str) -> bytes:
    """The text that is signed: chain, workerpool and the hash of all fields but the signature."""
    fields = assignment.model_dump(mode="json", exclude={"signature"})
    # A lone surrogate (no valid text has one) must not stop the scheduler: it becomes what no other text becomes.
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = to_hex(keccak(text.encode("utf-8", "surrogatepass")))
    return f"Sluice assignment\nchain {chain_id}\nworkerpool {workerpool.lower()}\n{digest}".encode()
