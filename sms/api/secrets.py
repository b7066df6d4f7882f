"""Routes for secrets: HEAD says whether there is one, POST stores it, PUT changes it where that is allowed.

204 done or present, 404 absent, 401 not by its owner, 409 present already, 413 too large. Nothing ever tells a value.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from protocol.enclave.secrets import SecretId, app_secret, dataset_key, requester_secret, wallet_secret
from protocol.errors import NotFound
from sms.api.parts import Body, Service, Signature
from sms.service import SecretService

router = APIRouter()

Dataset = Annotated[str, Query(alias="secretAddress")]
Owner = Annotated[str, Query(alias="ownerAddress")]
Name = Annotated[str, Query(alias="secretName")]

_DONE = 204


@router.head("/secrets/web3", status_code=_DONE)
def has_dataset_key(service: Service, dataset: Dataset) -> Response:
    """Whether a dataset's key is stored."""
    return _present(service, dataset_key(dataset))


@router.post("/secrets/web3", status_code=_DONE)
def add_dataset_key(service: Service, dataset: Dataset, value: Body, signature: Signature) -> Response:
    """Store a dataset's key: by the dataset's owner, once."""
    return _added(service, dataset_key(dataset), value, signature)


@router.head("/secrets/web2", status_code=_DONE)
def has_wallet_secret(service: Service, owner: Owner, name: Name) -> Response:
    """Whether a wallet's secret for the services is stored."""
    return _present(service, wallet_secret(owner, name))


@router.post("/secrets/web2", status_code=_DONE)
def add_wallet_secret(
    service: Service,
    owner: Owner,
    name: Name,
    value: Body,
    signature: Signature,
) -> Response:
    """Store a wallet's secret for the services."""
    return _added(service, wallet_secret(owner, name), value, signature)


@router.put("/secrets/web2", status_code=_DONE)
def change_wallet_secret(
    service: Service,
    owner: Owner,
    name: Name,
    value: Body,
    signature: Signature,
) -> Response:
    """Change a wallet's secret for the services, which must be there."""
    service.change(wallet_secret(owner, name), value, signature)
    return Response(status_code=_DONE)


@router.head("/apps/{app}/secrets", status_code=_DONE)
def has_app_secret(service: Service, app: str) -> Response:
    """Whether an app's secret is stored."""
    return _present(service, app_secret(app))


@router.post("/apps/{app}/secrets", status_code=_DONE)
def add_app_secret(service: Service, app: str, value: Body, signature: Signature) -> Response:
    """Store an app's secret: by the app's owner, once."""
    return _added(service, app_secret(app), value, signature)


@router.head("/requesters/{requester}/secrets/{name}", status_code=_DONE)
def has_requester_secret(service: Service, requester: str, name: str) -> Response:
    """Whether a requester's secret for apps is stored."""
    return _present(service, requester_secret(requester, name))


@router.post("/requesters/{requester}/secrets/{name}", status_code=_DONE)
def add_requester_secret(service: Service, requester: str, name: str, value: Body, signature: Signature) -> Response:
    """Store a requester's secret for apps, once."""
    return _added(service, requester_secret(requester, name), value, signature)


def _present(service: SecretService, secret: SecretId) -> Response:
    """The answer whether a secret is stored. Raises NotFound if it is not."""
    if not service.has(secret):
        raise NotFound(what="secret")
    return Response(status_code=_DONE)


def _added(service: SecretService, secret: SecretId, value: bytes, signature: str) -> Response:
    """Store a secret and answer that it is. Raises NotSignedIn, Refused."""
    service.add(secret, value, signature)
    return Response(status_code=_DONE)
