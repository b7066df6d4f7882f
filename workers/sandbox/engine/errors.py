"""Translates the Docker engine's errors into Sluice's, by the verdict on them."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator

import docker
import docker.errors
import requests
import urllib3.exceptions

from protocol.errors import (
    BadMessage,
    CannotStart,
    ContainerRefused,
    EngineTrouble,
    EngineUnavailable,
    SluiceError,
)
from workers.task.outcome.verdict import Verdict


def message(text: str) -> str:
    """The message in the body of an engine's error."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text


def status(error: docker.errors.APIError) -> int:
    """HTTP status of an engine's error."""
    return int(error.status_code or 0)


def words(error: docker.errors.APIError) -> str:
    """The engine's explanation of an error, as text."""
    return str(error.explanation or error)


def refusal(found: Verdict, error: docker.errors.APIError, host: str) -> SluiceError:
    """The error for a refused create or start."""
    match found:
        case Verdict.APP:
            return CannotStart(why=words(error))
        case Verdict.MACHINE:
            return ContainerRefused(why=words(error))
        case Verdict.RETRY:
            return EngineTrouble(what=host, why=words(error))


@contextlib.contextmanager
def engine_errors(host: str) -> Iterator[None]:
    """Raise EngineUnavailable (EngineTrouble) for errors of the engine that say nothing about the app: no answer, an
    unexpected error, or an answer that is not like Docker's.
    """
    try:
        yield
    except docker.errors.APIError as error:
        raise EngineTrouble(what=host, why=words(error)) from error
    except requests.exceptions.JSONDecodeError as error:
        raise EngineTrouble(what=host, why="its answer is not JSON") from error
    except requests.exceptions.RequestException as error:
        raise EngineUnavailable(what=host, why=type(error).__name__) from error
    except docker.errors.DockerException as error:
        raise EngineUnavailable(what=host, why=str(error)) from error
    except urllib3.exceptions.HTTPError as error:
        # A stream that breaks off: docker-py reads it past `requests`.
        raise EngineUnavailable(what=host, why=type(error).__name__) from error
    except (BadMessage, LookupError, TypeError, ValueError, AttributeError, struct.error) as error:
        # docker-py and we take an answer apart as if it were Docker's.
        raise EngineTrouble(what=host, why=f"its answer cannot be read ({error})") from error
