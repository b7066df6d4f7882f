"""The values that travel everywhere, as distinct types, so that a wallet cannot be passed where a task is meant.

Hex values are lower-case `0x` strings: they are what JSON, MongoDB and queue names carry. Bytes appear only where
something is hashed, signed or encoded.
"""

from __future__ import annotations

from typing import NewType

#: 32 bytes as `0x` + 64 lower-case hex digits.
TaskId = NewType("TaskId", str)
DealId = NewType("DealId", str)
TxHash = NewType("TxHash", str)
BlockHash = NewType("BlockHash", str)
#: 32 bytes, `0x` hex: a result digest, result hash, result seal or consensus value; which one, the field's name says.
Hash32 = NewType("Hash32", str)
#: 20 bytes as `0x` + 40 lower-case hex digits (not checksummed: RabbitMQ names and regexes are case sensitive).
Wallet = NewType("Wallet", str)
#: A contract's address, same shape as a wallet.
Contract = NewType("Contract", str)
#: 65-byte signature r‖s‖v (v 27 or 28) as `0x` hex.
Signature = NewType("Signature", str)

#: Account nonce of one transaction.
Nonce = NewType("Nonce", int)
#: 1e-18 of the chain's native token, which pays for gas.
Wei = NewType("Wei", int)
#: 1e-9 RLC: stakes, prices, rewards.
NRlc = NewType("NRlc", int)
BlockNumber = NewType("BlockNumber", int)
#: Unix time in whole seconds, as blocks carry it.
Timestamp = NewType("Timestamp", int)

ZERO_ADDRESS = Contract("0x" + "0" * 40)
ZERO_HASH = Hash32("0x" + "0" * 64)
