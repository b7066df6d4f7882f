"""MongoDB and RabbitMQ as clusters of three: started, found, cut off and brought back. And MongoDB sharded.

part        members                   ends well without one member, since
mongodb     a replica set             two elect a primary, and a write is acknowledged by two
rabbitmq    nodes of one cluster      a quorum queue has a member on each, and two elect a leader
mongodb     sharded (`sharding`)      not: each shard is a replica set of one
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from config.settings import Settings
from config.values.stack_settings import StackSettings
from ops.stack.clusters import members, partition, sharding
from ops.stack.clusters.members import Member
from ops.stack.clusters.partition import Side
from ops.stack.parts import StackPart, credentials
from ops.stack.process import Process, find
from ops.stack.servers import mongodb, rabbitmq
from protocol.errors import MissingTool

#: The parts that can be a cluster.
PARTS = (StackPart.MONGODB, StackPart.RABBITMQ)


def of_part(part: StackPart, home: Path, ports: StackSettings) -> tuple[Member, ...]:
    """The members of a part's cluster, running or not. `home`: of the stack."""
    folder = home.absolute() / "stack" / part
    if part is StackPart.MONGODB and ports.sharded:
        return members.of_sharded(folder)
    return members.of_cluster(folder, ports.mongodb_port if part is StackPart.MONGODB else ports.rabbitmq_port)


def has_members(part: StackPart, ports: StackSettings) -> bool:
    """Whether a part is to be a cluster, or sharded."""
    return part in PARTS and (ports.cluster or (ports.sharded and part is StackPart.MONGODB))


def as_it_runs(ports: StackSettings, home: Path) -> StackSettings:
    """The stack's settings, with `cluster` and `sharded` where one is up: one of its members was started and not
    stopped since, if maybe killed.
    """
    clustered = any(_was_started(home / "stack" / part) for part in PARTS)
    sharded = _was_started(home / "stack" / StackPart.MONGODB, [folder for folder, *_ in members.SHARDED])
    return ports.model_copy(update={"cluster": ports.cluster or clustered, "sharded": ports.sharded or sharded})


def start(part: StackPart, settings: Settings, ports: StackSettings) -> list[Process]:
    """Start the members of a part side by side, or find them running; returns once they are one cluster.

    Ends partitions that a killed test left. Raises PortTaken, NotReady, MissingTool, BadInput.
    """
    three = of_part(part, settings.home, ports)
    if part is StackPart.MONGODB and ports.sharded:
        return sharding.start(three, ports.mongodb_port)
    _heal(three)
    if part is StackPart.MONGODB:
        processes = _side_by_side(lambda member: mongodb.start_member(member, ports.mongodb_port), three)
        mongodb.found_set(three, ports.mongodb_port)
        return processes
    nodes = _nodes(settings, ports, three)
    nodes.prepare()
    nodes.mapped()
    return _side_by_side(nodes.start, three)


def restart(part: StackPart, number: int, settings: Settings, ports: StackSettings) -> None:
    """Start one member again, counted from 1. Raises as `start`."""
    three = of_part(part, settings.home, ports)
    member = three[number - 1]
    if part is StackPart.MONGODB:
        mongodb.start_member(member, ports.mongodb_port)
        mongodb.found_set(three, ports.mongodb_port)
    else:
        _nodes(settings, ports, three).start(member)


def forget(folder: Path) -> None:
    """Remove the pid files of killed members, so that the cluster counts as stopped. `folder`: of the part."""
    for name in members.FOLDERS:
        (folder / name / "pid").unlink(missing_ok=True)


def process(part: StackPart, member: Member) -> Process | None:
    """The process of one member; None if it does not run."""
    return find(part.label, member.folder / "pid")


def answers(part: StackPart, member: Member, settings: Settings, ports: StackSettings) -> bool:
    """Whether one member answers by itself; a node of RabbitMQ without the other two does not."""
    if part is StackPart.MONGODB:
        return mongodb.answers(member, ports.mongodb_port)
    return rabbitmq.ready(rabbitmq.api_url(ports.rabbitmq_port, member.host), *credentials(settings))


def cut(part: StackPart, member: Member, ports: StackSettings) -> None:
    """Cut one member off from everybody. Needs root. Raises MissingTool."""
    first = ports.mongodb_port if part is StackPart.MONGODB else ports.rabbitmq_port
    last = first if part is StackPart.MONGODB else first + rabbitmq.CLUSTER_PORTS - 1
    partition.cut(Side(_group(member), member.host, (first, last)))


def end_partitions(part: StackPart, home: Path, ports: StackSettings) -> None:
    """End the partitions that a killed test left of a part whose cluster was started. `home`: of the stack."""
    if _was_started(home / "stack" / part):
        _heal(of_part(part, home, ports.model_copy(update={"sharded": False})))


def heal(member: Member) -> None:
    """End the partition of one member. Raises MissingTool."""
    partition.heal([_group(member)])


def _heal(three: Sequence[Member]) -> None:
    """Take back all partitions among these members."""
    groups = [member.group for member in three if member.group is not None]
    if groups and partition.possible():
        # Whoever may not see the rules, as root in a container, could not have made any.
        with contextlib.suppress(MissingTool):
            partition.heal(groups)


def _was_started(folder: Path, names: Sequence[str] = tuple(map(str, members.NUMBERS))) -> bool:
    """Whether one of these members of the part in this folder was started and not stopped since, if maybe killed."""
    return any((folder / name / "pid").exists() for name in names)


def _group(member: Member) -> int:
    """The control group that a member's packets are told apart by. Raises MissingTool without root."""
    if member.group is None:
        raise partition.needs_root()
    return member.group


def _nodes(settings: Settings, ports: StackSettings, three: tuple[Member, ...]) -> rabbitmq.Nodes:
    """The three RabbitMQ nodes of a cluster."""
    user, password = credentials(settings)
    vhosts = (settings.amqp_core_vhost, settings.amqp_pool_vhost)
    return rabbitmq.Nodes(three[0].folder.parent, ports.rabbitmq_port, user, password, vhosts, three)


def _side_by_side(start_one: Callable[[Member], Process], three: Sequence[Member]) -> list[Process]:
    """A node of a cluster is ready only with another one."""
    with ThreadPoolExecutor(len(three)) as threads:
        return list(threads.map(start_one, three))
