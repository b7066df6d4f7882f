"""What a Docker engine of the stack leaves, one that is killed while a container runs too."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from docker import DockerClient

from ops.stack.process import find_pid
from ops.stack.servers import docker
from tests.waiting import ample
from workers.sandbox.network import pause_program


def test_what_a_killed_engine_leaves_is_ended_with_its_mounts(tmp_path: Path) -> None:
    found, run_folder = docker.program(tmp_path)
    # Another engine on this machine keeps its bridge: one that starts with `--bridge=none` would delete it.
    program = replace(found, command=["unshare", "--net", *found.command])
    host = docker.address(tmp_path)
    try:
        engine = docker.ensure(program, run_folder, seconds=ample(docker.START_SECONDS))
        with closing(DockerClient(base_url=host, timeout=int(ample(30.0)))) as client:
            archive = pause_program.archive(client.version()["Arch"])
            client.api.import_image_from_data(archive, repository="pause")
            container = client.containers.run(
                "pause", command=[f"/{pause_program.PATH}"], network_mode="none", detach=True
            )
            container.reload()
            inside = find_pid("the container's process", container.attrs["State"]["Pid"], word=pause_program.PATH)
        engine.kill()
        assert inside is not None
        assert inside.alive()
        assert _mounts(tmp_path)
    finally:
        docker.clear(tmp_path)
    # It may be a zombie for a while: the process that adopts a killed shim's children reaps them.
    assert not inside.alive()
    assert not _mounts(tmp_path)


def test_a_bridge_is_removed_with_every_rule_about_it_and_no_other() -> None:
    made = "ip link add {0} type bridge; iptables -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o {0} -j MASQUERADE;"
    made += "iptables -A FORWARD -i {0} -m comment --comment 'two words' -j ACCEPT; iptables -A FORWARD -o {0} -j DROP"
    removed = "from ops.stack.servers.docker_leftovers import remove_bridge; remove_bridge('sluice1')"
    told = "ip -brief link; iptables -t nat -S; iptables -S"
    script = "\n".join([made.format("sluice1"), made.format("sluice11"), f'{sys.executable} -c "{removed}"', told])
    ended = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.count("sluice11") == 4
    assert ended.stdout.count("sluice1") == 4


def _mounts(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line.split()[1]]
