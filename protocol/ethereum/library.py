"""Loads eth-account, which web3.py uses too, without py_ecc, the most expensive part of its import.

py_ecc is pairing cryptography: eth_keyfile imports it for the keystores of proof-of-stake validators, which no
wallet here is. It computes tables for 0.3 s at each import, a fifth of what the start of a process costs.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType

#: Order of the group of BLS12-381 (RFC 9380, section 8.8.1) and of secp256k1 (SEC 2, section 2.4.1).
_BLS12_381_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


#: What eth_keyfile takes from py_ecc: module → name → value.
_STAND_INS: dict[str, dict[str, object]] = {
    "py_ecc.bls": {"G2ProofOfPossession": object()},
    "py_ecc.bls12_381": {"curve_order": _BLS12_381_ORDER},
    "py_ecc.secp256k1": {"N": _SECP256K1_ORDER},
}


def load_eth_account() -> ModuleType:
    """The module `eth_account`, cheaper than by `import`, which costs as little once this was called."""
    if "eth_keyfile.keyfile" not in sys.modules:
        limit = sys.getrecursionlimit()
        with stand_ins(_STAND_INS), suppress(ImportError):
            import_module("eth_keyfile.keyfile")
        # Of a release that takes more from py_ecc, this is the usual import.
        import_module("eth_keyfile.keyfile")
        # py_ecc raises it to 100,000, at which a runaway recursion ends the process by a segmentation fault.
        sys.setrecursionlimit(limit)
    return import_module("eth_account")


@contextmanager
def stand_ins(modules: Mapping[str, Mapping[str, object]], absent: Collection[str] = ()) -> Iterator[None]:
    """Within the block, let imports find `modules` (name → attributes) as stand-ins, and none of `absent`.

    A module that this process has imported stays what it is.
    """
    made: dict[str, ModuleType | None] = {name: ModuleType(name) for name in modules if name not in sys.modules}
    for name, module in made.items():
        vars(module).update(modules[name])
    made |= dict.fromkeys(name for name in absent if name not in sys.modules)
    # To Python, None in place of a module says that there is none.
    sys.modules.update(made)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in made.items():
            if name in sys.modules and sys.modules[name] is module:
                del sys.modules[name]
