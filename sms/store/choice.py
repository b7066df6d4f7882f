"""Which store a secret service has: MongoDB, or an SQLite file."""

from __future__ import annotations

from config.connections.mongodb import durable_database
from config.settings import Settings
from config.values.sms_settings import SmsSettings
from sms.store.mongo import MongoSecretStore
from sms.store.port import SecretStore
from sms.store.sqlite import SqliteSecretStore


def chosen(settings: Settings, sms: SmsSettings) -> SecretStore:
    """The store that the settings name; opened on first use. Raises BadSetting."""
    if sms.sqlite_file is not None:
        return SqliteSecretStore(sms.sqlite_file)
    return MongoSecretStore(durable_database(settings, sms.database))


def name_of(sms: SmsSettings) -> str:
    """The name of the store in messages for the operator."""
    return f"database {sms.database}" if sms.sqlite_file is None else f"file {sms.sqlite_file}"


def setting_of(sms: SmsSettings) -> str:
    """The setting that names the store, without its prefix."""
    return "DATABASE" if sms.sqlite_file is None else "SQLITE_FILE"
