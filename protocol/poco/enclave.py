"""What an enclave signs with its challenge key (iexec-worker 9.2).

of a result    keccak(result hash ‖ result seal)    goes with contribute; the contract checks it
of a session   keccak(task id ‖ wallet)             goes with the enclave's requests to its worker

Before that, the workerpool's owner asks the secret service for the task's challenge with a signature of keccak(task id)
(iExec SMS 9.3).
"""

from __future__ import annotations

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import Key, recover_message_wallet
from protocol.poco.seal import result_hash, result_seal
from protocol.types import Hash32, Signature, TaskId, Wallet


def enclave_message(wallet: Wallet, task: TaskId, digest: Hash32) -> Hash32:
    """The hash that an enclave signs to attest a result digest."""
    vote = to_bytes(result_hash(task, digest)) + to_bytes(result_seal(wallet, task, digest))
    return Hash32(to_hex(keccak(vote)))


def sign_result(key: Key, wallet: Wallet, task: TaskId, digest: Hash32) -> Signature:
    """The enclave's signature of a result digest; `key` is the challenge key."""
    return key.sign_message(to_bytes(enclave_message(wallet, task, digest)))


def recover_enclave(signature: Signature, wallet: Wallet, task: TaskId, digest: Hash32) -> Wallet:
    """The challenge address that signed a result digest. Raises Refused for a malformed signature."""
    return recover_message_wallet(to_bytes(enclave_message(wallet, task, digest)), signature)


def session_message(wallet: Wallet, task: TaskId) -> Hash32:
    """The hash an enclave signs to speak to its worker."""
    return Hash32(to_hex(keccak(to_bytes(task, 32) + to_bytes(wallet, 20))))


def challenge_request(task: TaskId) -> Hash32:
    """The hash that the workerpool's owner signs to be told a task's enclave challenge."""
    return Hash32(to_hex(keccak(to_bytes(task, 32))))
