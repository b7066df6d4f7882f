from __future__ import annotations

import pytest

from sms.testing import MemorySecretStore
from tests.secret_store_contract import SecretStoreContract


class TestMemory(SecretStoreContract):
    @pytest.fixture
    def store(self) -> MemorySecretStore:
        return MemorySecretStore()
