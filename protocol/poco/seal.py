"""How a worker votes for a digest without revealing the digest: hash and seal (IexecPoco2, iexec-worker 9.2).

result hash = keccak(task id ‖ digest)             equal for all workers that agree: the vote
result seal = keccak(wallet ‖ task id ‖ digest)    proves at reveal that the vote was not copied
"""

from __future__ import annotations

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Hash32, TaskId, Wallet


def result_hash(task: TaskId, digest: Hash32) -> Hash32:
    """keccak(taskId ‖ digest): the result that a worker votes for in `contribute`."""
    return Hash32(to_hex(keccak(to_bytes(task, 32) + to_bytes(digest, 32))))


def result_seal(wallet: Wallet, task: TaskId, digest: Hash32) -> Hash32:
    """keccak(wallet ‖ taskId ‖ digest): binds the vote to the wallet. The contract checks it only at reveal."""
    return Hash32(to_hex(keccak(to_bytes(wallet, 20) + to_bytes(task, 32) + to_bytes(digest, 32))))
