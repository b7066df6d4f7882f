"""What the enclaves of a task get in their environment, by the names of iExec SMS 9.3. Pure.

    pre-compute    only if there is something to fetch: key, address and checksum of the dataset, or of each dataset of
                   the task's slice of a bulk; the input files
    app            the developer's secret, the requester's secrets that the deal names, and what every app gets
    post-compute   the beneficiary's public key if the result is to be encrypted, where it is stored and by which token

Pre- and post-compute also get the task's challenge key, with which they sign. An app never gets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from chain.contracts.hub import Dataset
from protocol.enclave.secrets import (
    DROPBOX_NAME,
    RESULT_KEY_NAME,
    STORE_NAME,
    STORE_URL_NAME,
    SecretId,
    app_secret,
    dataset_key,
    requester_secret,
    wallet_secret,
)
from protocol.enclave.session import (
    APP,
    POST_COMPUTE,
    PRE_COMPUTE,
    ComputeProperties,
    FrameworkProperties,
    Service,
    Session,
    SessionError,
)
from protocol.errors import BadMessage, NoSession
from protocol.results.environment import INPUT_FOLDER, app_variables
from protocol.results.params import DealParams, read_params
from protocol.types import Wallet
from sms.chain import Execution

_DROPBOX = "dropbox"
#: The index by which an app asks for a secret of its requester.
_INDEX = re.compile(r"0*[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task for which a session is made, and the worker that runs it."""

    execution: Execution
    params: DealParams
    worker: Wallet
    #: The datasets of its slice of a bulk; None for a deal that names no bulk.
    bulk: tuple[Dataset, ...] | None = None

    @classmethod
    def of(cls, execution: Execution, worker: Wallet) -> Wanted:
        """The task of an execution. Raises NoSession for what no enclave of this service can do."""
        try:
            params = read_params(execution.deal.params)
            _require_text(params)
        except BadMessage as error:
            raise NoSession(error=SessionError.FAILED, why=str(error)) from error
        return cls(execution, params, worker)

    @property
    def secrets(self) -> dict[str, SecretId]:
        """The secrets that the session may hold, by their purpose."""
        deal, params = self.execution.deal, self.params
        found = {"app": app_secret(deal.app)}
        if deal.dataset is not None:
            found["dataset"] = dataset_key(deal.dataset)
        for number, dataset in enumerate(self.bulk or (), start=1):
            found[f"dataset {number}"] = dataset_key(dataset.address)
        for wanted, name in params.secrets.items():
            if _INDEX.fullmatch(wanted):
                # A name that no secret may have is one of no secret.
                with suppress(BadMessage):
                    found[f"requester {int(wanted)}"] = requester_secret(deal.requester, name)
        if params.result_encryption:
            found["result"] = wallet_secret(deal.beneficiary, RESULT_KEY_NAME)
        if params.storage_provider == _DROPBOX:
            found["requester's token"] = wallet_secret(deal.requester, DROPBOX_NAME)
        else:
            found["worker's token"] = wallet_secret(self.worker, STORE_NAME)
            found["requester's token"] = wallet_secret(deal.requester, STORE_NAME)
            found["store"] = wallet_secret(deal.workerpool_owner, STORE_URL_NAME)
        return found


@dataclass(frozen=True, slots=True)
class Values:
    """The values of `Wanted.secrets` that are stored, and the task's challenge key."""

    found: Mapping[str, str] = field(repr=False)
    challenge_key: str = field(repr=False)


def make_session(session_id: str, wanted: Wanted, values: Values, properties: FrameworkProperties) -> Session:
    """The session of a task. Raises NoSession if a secret is missing without which it cannot be done."""
    execution, params = wanted.execution, wanted.params
    signing = {
        "IEXEC_TASK_ID": execution.task_id,
        "SIGN_WORKER_ADDRESS": wanted.worker,
        "SIGN_TEE_CHALLENGE_PRIVATE_KEY": values.challenge_key,
    }
    services = []
    if execution.dataset is not None or params.input_files or wanted.bulk is not None:
        variables = _pre_compute(wanted, values) | signing
        services.append(_service(PRE_COMPUTE, properties.pre_compute_properties, variables))
    app = execution.app
    services.append(Service(name=APP, image_name=app.image, fingerprint=app.checksum, environment=_app(wanted, values)))
    variables = _post_compute(wanted, values) | signing
    services.append(_service(POST_COMPUTE, properties.post_compute_properties, variables))
    return Session(name=session_id, services=tuple(services))


def _pre_compute(wanted: Wanted, values: Values) -> dict[str, str]:
    """Environment of the pre-compute container. Raises NoSession without a dataset's key."""
    execution, urls = wanted.execution, wanted.params.input_files
    variables = {
        "IEXEC_PRE_COMPUTE_OUT": INPUT_FOLDER,
        "IS_DATASET_REQUIRED": _word(execution.dataset is not None),
        "IEXEC_DEAL_ID": execution.deal.deal_id,
        "IEXEC_TASK_INDEX": str(execution.place.index),
        "IEXEC_INPUT_FILES_NUMBER": str(len(urls)),
        "IEXEC_INPUT_FILES_FOLDER": INPUT_FOLDER,
    }
    if execution.dataset is not None:
        variables |= _dataset("IEXEC_DATASET", execution.dataset, values.found.get("dataset"))
    if wanted.bulk is not None:
        variables["IEXEC_BULK_SLICE_SIZE"] = str(len(wanted.bulk))
    for number, dataset in enumerate(wanted.bulk or (), start=1):
        variables |= _dataset(f"IEXEC_DATASET_{number}", dataset, values.found.get(f"dataset {number}"))
    return variables | {f"IEXEC_INPUT_FILE_URL_{number}": url for number, url in enumerate(urls, start=1)}


def _dataset(prefix: str, dataset: Dataset, key: str | None) -> dict[str, str]:
    """Variables that give a container a dataset and its key. Raises NoSession without the key."""
    if key is None:
        raise NoSession(error=SessionError.NO_DATASET_KEY, why=f"dataset {dataset.address} has no key here")
    return {
        f"{prefix}_KEY": key,
        f"{prefix}_URL": dataset.location,
        f"{prefix}_CHECKSUM": dataset.checksum,
        f"{prefix}_FILENAME": dataset.address,
    }


def _app(wanted: Wanted, values: Values) -> dict[str, str]:
    """Environment of the app's container."""
    deal = wanted.execution.deal
    variables = app_variables(
        wanted.execution.task_id,
        deal.deal_id,
        wanted.execution.place.index,
        bag=(deal.bot_first, deal.bot_size),
        dataset=deal.dataset,
        input_files=wanted.params.input_files,
    )
    if wanted.bulk is not None:
        variables["IEXEC_BULK_SLICE_SIZE"] = str(len(wanted.bulk))
    for number, dataset in enumerate(wanted.bulk or (), start=1):
        variables[f"IEXEC_DATASET_{number}_FILENAME"] = dataset.address
    if "app" in values.found:
        variables |= dict.fromkeys(("IEXEC_APP_DEVELOPER_SECRET", "IEXEC_APP_DEVELOPER_SECRET_1"), values.found["app"])
    prefix = "requester "
    return variables | {
        f"IEXEC_REQUESTER_SECRET_{name.removeprefix(prefix)}": value
        for name, value in values.found.items()
        if name.startswith(prefix)
    }


def _post_compute(wanted: Wanted, values: Values) -> dict[str, str]:
    """Environment of the post-compute container. Raises NoSession without a key or token it needs."""
    params, found = wanted.params, values.found
    if params.result_encryption and not found.get("result"):
        raise NoSession(error=SessionError.NO_RESULT_KEY, why="the beneficiary has no encryption key here")
    variables = {
        "RESULT_ENCRYPTION": _word(params.result_encryption),
        "RESULT_ENCRYPTION_PUBLIC_KEY": found["result"] if params.result_encryption else "",
        "RESULT_STORAGE_CALLBACK": _word(wanted.execution.deal.callback is not None),
        "RESULT_STORAGE_PROVIDER": "",
        "RESULT_STORAGE_PROXY": "",
        "RESULT_STORAGE_TOKEN": "",
    }
    if wanted.execution.deal.callback is not None:
        return variables
    token = found.get("worker's token") or found.get("requester's token")
    if not token:
        raise NoSession(error=SessionError.NO_STORAGE_TOKEN, why="neither worker nor requester has a token to store by")
    return variables | {
        "RESULT_STORAGE_PROVIDER": params.storage_provider or "",
        "RESULT_STORAGE_PROXY": params.storage_proxy or found.get("store", ""),
        "RESULT_STORAGE_TOKEN": token,
    }


def _service(name: str, properties: ComputeProperties, environment: dict[str, str]) -> Service:
    """One container of a session."""
    return Service(name=name, image_name=properties.image, fingerprint=properties.fingerprint, environment=environment)


def _word(value: bool) -> str:
    """A truth value as containers read it."""
    return "true" if value else "false"


def _require_text(params: DealParams) -> None:
    """Raise BadMessage for params with half of a surrogate pair, which JSON can hold and no environment can."""
    try:
        json.dumps(asdict(params), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadMessage(why="its params hold what is no character") from error
