"""The accounts of a development chain: everybody knows their keys, so no real chain may ever see them."""

from __future__ import annotations

from functools import cache

from chain.rpc.client import JsonRpc
from ops.stack.servers.anvil import MNEMONIC
from protocol.ethereum.library import load_eth_account
from protocol.ethereum.signing import Key
from protocol.types import Wallet, Wei

#: Accounts that anvil funds with the native token by itself.
FUNDED_ACCOUNTS = 10
#: 1e18 wei: one unit of the native token.
ETHER = Wei(10**18)


@cache
def dev_key(index: int) -> Key:
    """Key of account `index` of the development key phrase; those from FUNDED_ACCOUNTS on start empty."""
    # The feature is "unaudited" upstream; for keys that are public anyhow nothing can leak.
    account = load_eth_account().Account
    account.enable_unaudited_hdwallet_features()
    return Key(bytes(account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key))


def give_ether(rpc: JsonRpc, wallets: tuple[Wallet, ...], amount: Wei) -> None:
    """Set each wallet's balance to `amount` wei; works on development chains only."""
    answers = rpc.batch([("anvil_setBalance", (wallet, hex(amount))) for wallet in wallets])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
