"""Sign-in challenges that the API makes and finds again without storing them."""

from __future__ import annotations

import pytest

from pipeline.api.auth.challenges import CHALLENGE_SECONDS, RANDOM_BYTES, issue_challenge, reopen_challenge
from protocol.errors import BadMessage, NotSignedIn, Refused
from protocol.ethereum.signing import Key
from protocol.signin import SignIn
from protocol.types import Contract, Hash32, Wallet

KEY = b"k" * 32
POOL = Contract("0x" + "cc" * 20)
WORKER = Key(b"\x11" * 32)
OTHER = Key(b"\x22" * 32)
NOW = 1_800_000_000.7


def ask(wallet: Wallet = WORKER.wallet, random: bytes = b"r" * RANDOM_BYTES) -> SignIn:
    return issue_challenge(KEY, 134, POOL, wallet, now=NOW, random=random)


def test_a_challenge_is_found_again_from_its_nonce_alone() -> None:
    assert reopen_challenge([KEY], 134, POOL, WORKER.wallet, ask().nonce) == ask()


def test_a_challenge_says_when_it_expires() -> None:
    assert ask().expires_at == 1_800_000_000 + CHALLENGE_SECONDS
    ask().check(ask().sign(WORKER), NOW + CHALLENGE_SECONDS - 1)
    with pytest.raises(Refused, match="expired"):
        ask().check(ask().sign(WORKER), NOW + CHALLENGE_SECONDS)


def test_two_challenges_differ() -> None:
    assert ask(random=b"a" * RANDOM_BYTES).nonce != ask(random=b"b" * RANDOM_BYTES).nonce


def test_a_challenge_of_another_wallet_is_refused() -> None:
    with pytest.raises(NotSignedIn):
        reopen_challenge([KEY], 134, POOL, OTHER.wallet, ask().nonce)


def test_a_challenge_with_a_later_expiry_is_refused() -> None:
    raw = bytearray.fromhex(ask().nonce[2:])
    raw[6] += 1
    with pytest.raises(NotSignedIn):
        reopen_challenge([KEY], 134, POOL, WORKER.wallet, Hash32("0x" + raw.hex()))


def test_a_challenge_that_another_pool_made_is_refused() -> None:
    foreign = issue_challenge(b"x" * 32, 134, POOL, WORKER.wallet, now=NOW, random=b"r" * RANDOM_BYTES)
    with pytest.raises(NotSignedIn):
        reopen_challenge([KEY], 134, POOL, WORKER.wallet, foreign.nonce)


def test_a_nonce_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(BadMessage):
        reopen_challenge([KEY], 134, POOL, WORKER.wallet, Hash32("0x1234"))


def test_a_challenge_of_an_older_key_is_good_while_that_key_verifies() -> None:
    assert reopen_challenge([b"n" * 32, KEY], 134, POOL, WORKER.wallet, ask().nonce) == ask()
