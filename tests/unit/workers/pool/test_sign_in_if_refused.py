"""What a machine does when the broker does not take it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import AccessRefused, ConnectionForced, NotAllowed
from kombu.exceptions import OperationalError

from workers.pool.broker import sign_in_if_refused


@pytest.mark.parametrize(
    ("error", "renewed"),
    [
        (AccessRefused("ACCESS_REFUSED - Login was refused"), True),
        (NotAllowed("NOT_ALLOWED - access to vhost 'pool' refused for user '0x1'"), True),
        (NotAllowed("NOT_ALLOWED - vhost pool not found"), True),
        (
            NotAllowed("NOT_ALLOWED - access refused: connection limit (1) is reached"),
            False,
        ),
        (ConnectionForced("CONNECTION_FORCED - broker forced connection closure"), False),
        (OperationalError("timed out"), False),
        (ConnectionRefusedError("refused"), False),
    ],
    ids=["password", "permission", "virtual host", "limit", "forced", "slow", "away"],
)
def test_a_machine_signs_in_anew_where_that_may_help_and_stays_up_in_any_case(error: Exception, renewed: bool) -> None:
    class Refusing:
        def __enter__(self) -> Any:
            raise error

        def __exit__(self, *_: object) -> None:
            """Nothing is open."""

    tokens: list[str] = []
    access = SimpleNamespace(host="pool.example")
    session = SimpleNamespace(current=lambda: SimpleNamespace(token="t", broker=access), renew=tokens.append)
    app: Any = SimpleNamespace(connection_for_write=Refusing)
    machine: Any = SimpleNamespace(session=session)
    sign_in_if_refused(app, machine)
    assert tokens == (["t"] if renewed else [])
