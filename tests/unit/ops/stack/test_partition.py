"""What cuts a member of a cluster off, and finds its rules again among those of others."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from config.values.stack_settings import StackSettings
from ops.stack import stack
from ops.stack.clusters import members, partition
from ops.stack.clusters.partition import Side
from ops.stack.parts import StackPart

SIDE = Side(180171, "127.0.0.2", (18017, 18017))
#: As `iptables -S OUTPUT` prints.
PRINTED = """-P OUTPUT ACCEPT
-A OUTPUT -m owner --gid-owner 180172 -m comment --comment sluice-partition-180172 -j DROP
-A OUTPUT -m owner --gid-owner 180171 -m comment --comment "sluice-partition-180171" -j DROP
-A OUTPUT -p tcp -j ACCEPT
"""


def test_a_side_is_cut_off_by_its_group_and_by_its_own_ports() -> None:
    sends, receives = partition.rules(SIDE)
    assert sends[:5] == ("OUTPUT", "-m", "owner", "--gid-owner", "180171")
    assert receives[:7] == ("INPUT", "-d", "127.0.0.2", "-p", "tcp", "--dport", "18017:18017")
    assert sends[-2:] == receives[-2:] == ("-j", "DROP")


def test_a_partition_is_healed_by_its_own_rules_only() -> None:
    (found,) = partition.rules_of([180171], PRINTED)
    assert found == partition.rules(SIDE)[0]
    assert len(partition.rules_of([180171, 180172], PRINTED)) == 2
    assert not partition.rules_of([18017], PRINTED)


def test_members_have_an_address_and_a_folder_each_and_no_two_ports_share_a_group() -> None:
    three = members.of_cluster(Path("/f"), 18017)
    assert [(one.number, one.host, str(one.folder)) for one in three] == [
        (1, "127.0.0.2", "/f/1"),
        (2, "127.0.0.3", "/f/2"),
        (3, "127.0.0.4", "/f/3"),
    ]
    groups = [members.own_group(port, number) for port in (18017, 18018) for number in members.NUMBERS]
    assert len({group for group in groups if group is not None}) in {0, len(groups)}


@pytest.mark.parametrize("allowed", [True, False])
def test_down_ends_partitions_that_a_killed_test_left_and_never_fails_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, allowed: bool
) -> None:
    healed: list[int] = []

    def heal(groups: Collection[int]) -> None:
        if not allowed:
            raise partition.needs_root()
        healed.extend(groups)

    monkeypatch.setattr(members, "own_group", lambda port, number: port * 10 + number)
    monkeypatch.setattr(partition, "possible", lambda: True)
    monkeypatch.setattr(partition, "heal", heal)
    ports, part = StackSettings(mongodb_port=18017), StackPart.MONGODB
    stack.down(tmp_path, ports, [part], lambda _: None)
    assert not healed
    (tmp_path / "stack" / part / "2").mkdir(parents=True)
    (tmp_path / "stack" / part / "2" / "pid").write_text("")
    stack.down(tmp_path, ports, [part], lambda _: None)
    assert healed == ([180171, 180172, 180173] if allowed else [])
    assert not (tmp_path / "stack" / part / "2" / "pid").exists()
