"""RabbitMQ's nodes as the settings name them: a single one, or those of a cluster, which clients try in turn.

SLUICE_AMQP_URL           amqp://user:password@a:5672;amqp://user:password@b:5672
SLUICE_RABBITMQ_API       http://a:15672;http://b:15672
SLUICE_AMQP_PUBLIC_HOST   a.pool.example;b.pool.example:5673      without a port: SLUICE_AMQP_PUBLIC_PORT
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from config.settings import Settings
from protocol.errors import BadSetting
from protocol.types import Wallet
from protocol.wire import BrokerNode

#: Between two nodes, as kombu has it: a password in a URL may hold a comma.
SEPARATOR = ";"


def amqp_urls(settings: Settings) -> list[str]:
    """AMQP address of each node, without a virtual host; at least one."""
    return _listed(settings.amqp_url.get_secret_value()) or [""]


def api_urls(settings: Settings) -> list[str]:
    """Management API of each node, at least one."""
    return _listed(settings.rabbitmq_api) or [""]


def with_vhost(urls: str, vhost: str) -> str:
    """The nodes' addresses with this virtual host, as kombu takes them. `urls`: as SLUICE_AMQP_URL, or with another."""
    parts = (urlsplit(url) for url in _listed(urls))
    return SEPARATOR.join(f"{node.scheme}://{node.netloc}/{quote(vhost, safe='')}" for node in parts)


def public_nodes(settings: Settings) -> tuple[BrokerNode, ...]:
    """Where workers reach each node, at least one. Raises BadSetting."""
    return tuple(_node(entry, settings.amqp_public_port) for entry in _listed(settings.amqp_public_host) or [""])


def nodes_for(wallet: Wallet, nodes: Sequence[BrokerNode]) -> tuple[BrokerNode, ...]:
    """The nodes in the order in which a machine should try them, so that machines spread over all of them."""
    first = int(wallet, 16) % len(nodes)
    return (*nodes[first:], *nodes[:first])


def _node(entry: str, port: int) -> BrokerNode:
    """A host, or host and port; an IPv6 address with a port has brackets."""
    if entry.count(":") > 1 and not entry.startswith("["):
        return BrokerNode(host=entry, port=port)
    try:
        parts = urlsplit(f"//{entry}")
        # Reading the port is what finds a malformed one.
        return BrokerNode(host=parts.hostname or "", port=parts.port or port)
    except ValueError as error:  # pydantic's too
        raise BadSetting(
            name="SLUICE_AMQP_PUBLIC_HOST",
            why=f"{entry!r} is no host name",
            fix="Write it like pool.example, or a.pool.example;b.pool.example:5671 for a cluster.",
        ) from error


def _listed(several: str) -> list[str]:
    """The entries of a setting that names several nodes, without spaces and slashes at their ends."""
    return [stripped for entry in several.split(SEPARATOR) if (stripped := entry.strip().rstrip("/"))]
