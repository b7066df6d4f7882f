"""Our errors: their messages, fields, tree, and way from one process to another."""

from __future__ import annotations

import inspect
import pickle
import string

import pytest
from celery.utils.serialization import get_pickleable_exception

from protocol import errors
from protocol.errors import RpcError, SluiceError, TaskFailure


def all_errors() -> list[type[SluiceError]]:
    return [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, SluiceError)]


@pytest.mark.parametrize("kind", all_errors())
def test_an_errors_docstring_is_its_message_with_the_fields_filled_in(kind: type[SluiceError]) -> None:
    template = " ".join((kind.__doc__ or "").split())
    fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    error = kind(**{name: f"<{name}>" for name in fields})
    assert template
    assert str(error) == template.format(**{name: f"<{name}>" for name in fields})
    assert error.fields.keys() == fields


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_is_the_same_after_a_celery_process_has_handed_it_to_its_parent(kind: type[SluiceError]) -> None:
    template = " ".join((kind.__doc__ or "").split())
    error = kind(**{name: "x" for _, name, _, _ in string.Formatter().parse(template) if name})
    for handed in (pickle.loads(pickle.dumps(error)), get_pickleable_exception(error)):
        assert type(handed) is kind
        assert (str(handed), handed.fields) == (str(error), error.fields)


@pytest.mark.parametrize("kind", all_errors())
def test_every_error_stands_in_the_drawn_tree(kind: type[SluiceError]) -> None:
    drawn = {word for line in (errors.__doc__ or "").splitlines() for word in line.split()[:6]}
    assert kind.__name__ in drawn


def test_an_rpc_error_keeps_code_message_and_data() -> None:
    error = RpcError(method="eth_call", code=3, message="execution reverted", data="0x08c379a0")
    assert (error.code, error.message, error.data) == (3, "execution reverted", "0x08c379a0")
    assert RpcError(method="eth_call", code=-32000, message="no").data is None


def test_a_task_failure_names_status_and_cause() -> None:
    failure = TaskFailure(task="0x01", status="APP_DOWNLOAD_FAILED", cause="APP_IMAGE_DOWNLOAD_FAILED", why="gone")
    assert (failure.status, failure.cause) == ("APP_DOWNLOAD_FAILED", "APP_IMAGE_DOWNLOAD_FAILED")
