"""What `sluice restore` makes of an archive before it touches a database."""

from __future__ import annotations

from pathlib import Path

import bson
import pytest

from config.settings import read_settings
from ops.archive import open_archive, write_archive
from ops.backup.put_back import may_have_sold


def backup(path: Path, *, orders: int = 0, lines: str = "SLUICE_CHAIN_ID=1\n") -> Path:
    with write_archive(path, {}) as archive:
        archive.add("database/orders.bson", [bson.encode({"_id": number}) for number in range(orders)])
        archive.add("settings.env", [lines.encode()])
    return path


@pytest.mark.parametrize(
    ("orders", "lines", "now", "held"),
    [
        (0, "SLUICE_CHAIN_ID=1\n", None, False),
        (0, "# SLUICE_ORDERS_FILE is left out\n", None, False),
        (1, "SLUICE_CHAIN_ID=1\n", None, True),
        (0, "SLUICE_ORDERS_FILE=offers.toml\n", None, True),
        (0, "SLUICE_CHAIN_ID=1\nSLUICE_ORDERS_FILE=offers.toml\n", None, True),
        (0, "SLUICE_CHAIN_ID=1\n", Path("offers.toml"), True),
    ],
)
def test_orders_may_have_been_signed_since_a_backup_with_orders_or_settings_that_name_offers(
    tmp_path: Path, orders: int, lines: str, now: Path | None, held: bool
) -> None:
    with open_archive(backup(tmp_path / "backup", orders=orders, lines=lines)) as archive:
        assert may_have_sold(archive, read_settings(orders_file=now)) is held
