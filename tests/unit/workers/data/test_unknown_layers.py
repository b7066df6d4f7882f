"""An image whose layers this release cannot read is declined at once: asked again, the registry names the same ones."""

from __future__ import annotations

import json

import pytest

from protocol.errors import RefusedHere
from workers.data import registry

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("kind", ["application/vnd.oci.image.layer.v1.tar+zstd", "application/x-nothing"])
def test_a_layer_of_another_kind_is_not_asked_for_again_and_again(kind: str) -> None:
    """Retried until the pool stopped waiting, it had every machine counted as one that was not heard of in time."""
    blob = {"digest": DIGEST, "size": 1}
    body = json.dumps({"config": blob | {"mediaType": "x"}, "layers": [blob | {"mediaType": kind}]})
    with pytest.raises(RefusedHere, match="a layer of the kind"):
        registry._read_manifest(body.encode(), DIGEST)
