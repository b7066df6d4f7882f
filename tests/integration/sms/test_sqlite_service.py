"""A secret service that stores in a file is killed, and the next one has all that it had."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from protocol.enclave.secrets import RESULT_KEY_NAME, wallet_secret
from protocol.errors import SluiceError
from tests.integration.conftest import Chain
from tests.integration.sms.service import serving
from tests.waiting import ample


def test_what_was_stored_is_there_after_kill_9_without_any_mongodb(chain: Chain, tmp_path: Path) -> None:
    owner = chain.sender(5).key
    secret = wallet_secret(owner.wallet, RESULT_KEY_NAME)
    path = f"/secrets/web2?ownerAddress={owner.wallet}&secretName={RESULT_KEY_NAME}"
    with serving(chain, None, tmp_path / "sms") as sms:
        sms.keep(owner, secret, b"a value")
        sms.kill()
        sms.start()
        assert httpx.head(sms.url + path, timeout=ample(10.0)).status_code == 204
        # It holds the value still, and no other comes in its place.
        with pytest.raises(SluiceError):
            sms.keep(chain.sender(6).key, secret, b"another")
        kept = b"".join(file.read_bytes() for file in (tmp_path / "sms").iterdir())
        assert b"a value" not in kept
