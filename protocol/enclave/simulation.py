"""Where enclaves may be simulated: on development chains, and only where a setting allows it.

Without the hardware nothing keeps a machine's owner from reading what an app gets, so a simulation is refused wherever
secrets may be somebody's.
"""

from __future__ import annotations

from protocol.errors import BadSetting

#: Chain ids of anvil and Hardhat, and of Ganache and `geth --dev`: nothing on them is worth anything.
DEVELOPMENT_CHAINS = frozenset({31337, 1337})


def require_development(chain_id: int, setting: str) -> None:
    """Raise BadSetting unless enclaves may be simulated on this chain. `setting`: the one that asks for it."""
    if chain_id not in DEVELOPMENT_CHAINS:
        raise BadSetting(
            name=setting,
            why=f"enclaves are simulated on development chains only (chain ids 31337 and 1337), not on {chain_id}",
            fix="Unset it: what a simulation gets, the machine's owner can read.",
        )
