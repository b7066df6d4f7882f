"""How the pool's owner signs in to iExec's market API: one challenge for each request, good for nothing else.

    GET /challenge ──► typed data Challenge(string challenge) of the domain {iExec Gateway, 1, chain id}
    POST, PUT          Authorization: <EIP-712 hash>_<signature>_<address>

What is signed is built here around the challenge's text, and an answer that asks for anything else is refused: a market
that lies cannot obtain the signature of an order. Source: iexec-market-api 7.1.2, `services/auth.js`; SDK 9.0.1.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.ethereum.typed_data import Member, TypedData, typed_data_digest

DOMAIN_NAME, DOMAIN_VERSION = "iExec Gateway", "1"
#: Characters of a challenge; those of the market API have some 80.
LONGEST_CHALLENGE = 500


def sign_in(key: Key, chain_id: int, answer: Mapping[str, object]) -> str:
    """The `Authorization` header that answers the typed data of GET /challenge. Raises BadMessage unless it is one."""
    match answer:
        case {"message": {"challenge": str(challenge)}} if _is_plain(challenge):
            wanted = challenge_typed_data(chain_id, challenge)
            if _comparable(answer) == _comparable(wanted):
                return f"{to_hex(typed_data_digest(wanted))}_{key.sign_typed_data(wanted)}_{key.wallet}"
    raise BadMessage(why="the market's challenge asks to sign something else than a sign-in to the market")


def challenge_typed_data(chain_id: int, challenge: str) -> TypedData:
    """The typed data of one challenge."""
    return {
        "types": {
            "EIP712Domain": [
                Member(name="name", type="string"),
                Member(name="version", type="string"),
                Member(name="chainId", type="uint256"),
            ],
            "Challenge": [Member(name="challenge", type="string")],
        },
        "primaryType": "Challenge",
        "domain": {"name": DOMAIN_NAME, "version": DOMAIN_VERSION, "chainId": chain_id},
        "message": {"challenge": challenge},
    }


def _is_plain(challenge: str) -> bool:
    """Whether it is short and printable ASCII, as those of the market API are: JSON may hold what no text may."""
    return len(challenge) <= LONGEST_CHALLENGE and challenge.isascii() and challenge.isprintable()


def _comparable(data: Mapping[str, object]) -> object:
    """The typed data with its chain id as text: the market API sends what it was asked with, a number or text."""
    domain = data.get("domain")
    if not isinstance(domain, Mapping):
        return data
    return {**data, "domain": {**domain, "chainId": str(domain.get("chainId"))}}
