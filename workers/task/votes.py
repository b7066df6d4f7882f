"""The three transactions of a worker, as intents for its lane. Pure.

    vote    contribute(hash, seal) ──consensus──► reveal(digest)
    solo    contributeAndFinalize(digest, link)                      trust 1, nothing locked

The hash hides the digest until everybody has voted, the seal binds the vote to this wallet (iexec-worker 9.2).
"""

from __future__ import annotations

from chain.lane.model.intent import BEHIND, Intent
from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes_leniently, to_hex
from protocol.poco.seal import result_hash, result_seal
from protocol.types import ZERO_ADDRESS, Hash32, Wallet
from workers.task.replicate import Replicate

CONTRIBUTE, REVEAL, SOLO = "contribute", "reveal", "contributeAndFinalize"


def contribute(replicate: Replicate, chain_id: int, now: float, behind: Wallet | None = None) -> Intent:
    """The intent that casts the vote. `now`: Unix seconds; `behind`: the wallet that initializes the task. Raises
    BadMessage without a digest.
    """
    task_id, digest = replicate.task_id, _digest(replicate)
    wallet = Wallet(replicate.assignment.wallet)
    args = {
        "result_hash": result_hash(task_id, digest),
        "result_seal": result_seal(wallet, task_id, digest),
        "authorization": replicate.assignment.authorization,
    }
    args |= _enclave(replicate) | ({} if behind is None else {BEHIND: behind})
    return Intent.new(chain_id, wallet, CONTRIBUTE, task_id, args, now)


def key(replicate: Replicate, chain_id: int) -> str:
    """Key of the intent that casts the vote, by `contribute` or `contribute_and_finalize`."""
    method = SOLO if replicate.solo else CONTRIBUTE
    return Intent.new(chain_id, Wallet(replicate.assignment.wallet), method, replicate.task_id).key


def reveal(replicate: Replicate, chain_id: int, now: float, worth: int = 0, *, occasion: int = 0) -> Intent:
    """The intent that reveals the vote. `worth`: wei that the stake is worth, which is lost without the reveal.
    `occasion`: how many were given up before.
    """
    wallet = Wallet(replicate.assignment.wallet)
    args = {"digest": _digest(replicate)} | ({"worth": str(worth)} if worth else {})
    return Intent.new(chain_id, wallet, REVEAL, replicate.task_id, args, now, occasion=occasion)


def contribute_and_finalize(replicate: Replicate, chain_id: int, now: float, behind: Wallet | None = None) -> Intent:
    """The intent that votes, reveals and finalizes a trust-1 task in one transaction. `behind`: as in `contribute`.
    Raises BadMessage before the result is stored at the pool.
    """
    if replicate.link is None:
        raise BadMessage(why=f"the result of task {replicate.task_id} is not stored yet")
    assignment = replicate.assignment
    args = {
        "digest": _digest(replicate),
        "results": to_hex(replicate.link.model_dump_json().encode()),
        "authorization": assignment.authorization,
    }
    args |= _enclave(replicate) | ({} if behind is None else {BEHIND: behind})
    if assignment.callback != ZERO_ADDRESS and replicate.callback_data is not None:
        # The bytes that were hashed; a deal without callback must not carry any (the contract compares the hash).
        args["callback"] = to_hex(to_bytes_leniently(replicate.callback_data))
    return Intent.new(chain_id, Wallet(assignment.wallet), SOLO, replicate.task_id, args, now)


def _enclave(replicate: Replicate) -> dict[str, str]:
    """Challenge, and signature by its key if the task is for an enclave."""
    signed, challenge = replicate.enclave_signature, {"enclave_challenge": replicate.assignment.enclave_challenge}
    return challenge if signed is None else challenge | {"enclave_signature": signed}


def _digest(replicate: Replicate) -> Hash32:
    """The digest of the replicate's result. Raises BadMessage without one."""
    if replicate.digest is None:
        raise BadMessage(why=f"task {replicate.task_id} has no result yet")
    return replicate.digest
