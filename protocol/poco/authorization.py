"""The workerpool owner's permission for one wallet to contribute to one task (IexecPoco2, iexec-worker 9.2).

hash = keccak(wallet ‖ task id ‖ enclave challenge), signed with EIP-191; the challenge is zero without an enclave.
"""

from __future__ import annotations

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import Key, recover_message_wallet
from protocol.types import ZERO_ADDRESS, Contract, Hash32, Signature, TaskId, Wallet


def authorization_hash(wallet: Wallet, task: TaskId, enclave: Contract | Wallet = ZERO_ADDRESS) -> Hash32:
    """The hash that an authorization signs; `enclave` is the enclave's challenge address."""
    return Hash32(to_hex(keccak(to_bytes(wallet, 20) + to_bytes(task, 32) + to_bytes(enclave, 20))))


def sign_authorization(key: Key, wallet: Wallet, task: TaskId, enclave: Contract | Wallet = ZERO_ADDRESS) -> Signature:
    """The workerpool's authorization for one worker and task. `key` must be its owner's, or the contract reverts."""
    return key.sign_message(to_bytes(authorization_hash(wallet, task, enclave)))


def recover_authorization(
    signature: Signature, wallet: Wallet, task: TaskId, enclave: Contract | Wallet = ZERO_ADDRESS
) -> Wallet:
    """The wallet that signed this authorization. Raises Refused for a malformed signature."""
    return recover_message_wallet(to_bytes(authorization_hash(wallet, task, enclave)), signature)
