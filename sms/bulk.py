"""The datasets of one task of a bulk, as iExec's SDK 9 makes it (`prepareDatasetBulk`).

    deal params ── bulk_cid ──► a JSON list of CIDs ── the one at the task's index ──► a JSON list of datasets' orders

The contract says whether an order allows the deal to use its dataset: signature, restrictions, tag, revocation. It does
not check that a bulk pays nothing and uses up no order, so the owner must have signed exactly that.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from chain.contracts.hub import Dataset
from protocol.enclave.session import SessionError
from protocol.errors import BadMessage, NoSession
from protocol.nesting import nests_deeper
from protocol.poco.orders import FREE, DatasetOrder
from protocol.results.params import DealParams
from sms.chain import WHY_CHARACTERS, ChainReader, Execution
from sms.ipfs import IpfsFiles

#: Datasets of one task at most, as in the SDK.
MOST_DATASETS = 100
#: The least volume of an order that a bulk may use: 2^53 - 1 stands for "any number of times", and the SDK takes one
#: less as well, for orders that older versions made.
LEAST_VOLUME = 2**53 - 2
_MOST_VOLUME = 2**256 - 1
#: CIDv0, as the SDK's node makes it.
_CID = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}")
#: A list, and the orders in it.
_DEEPEST = 2


def named(params: DealParams) -> bool:
    """Whether a deal names a bulk."""
    return bool(params.bulk_cid.strip())


def datasets(execution: Execution, params: DealParams, files: IpfsFiles, chain: ChainReader) -> tuple[Dataset, ...]:
    """The datasets of the task's slice. Raises NoSession for what is wrong, Unavailable for what cannot be told."""
    slices = _list(files.fetch(_cid(params.bulk_cid)))
    index = execution.place.index
    if index >= len(slices):
        _refuse(f"the bulk has {len(slices)} slices, and the task is number {index}")
    orders = read_orders(files.fetch(_cid(slices[index])))
    return chain.allowed(execution.deal.deal_id, orders)


def read_orders(content: bytes) -> tuple[DatasetOrder, ...]:
    """The orders of a slice, each free and for any number of tasks. Raises NoSession."""
    rows = _list(content)
    if len(rows) > MOST_DATASETS:
        _refuse(f"a slice has {len(rows)} datasets, and {MOST_DATASETS} is the most")
    return tuple(_order(row) for row in rows)


def _order(row: object) -> DatasetOrder:
    """The order of a dataset in a bulk. Raises NoSession."""
    if not isinstance(row, dict):
        _refuse("a dataset's order is no object")
    try:
        order = DatasetOrder.from_json(row)
    except (BadMessage, ValueError) as error:
        _refuse(f"a dataset's order is not of its form ({error})")
    if order.datasetprice != FREE or not LEAST_VOLUME <= order.volume <= _MOST_VOLUME:
        _refuse(
            f"the order of dataset {order.dataset} is not for bulks: they are free, and of volume {LEAST_VOLUME + 1}"
        )
    return order


def _list(content: bytes) -> list[object]:
    """The list in a file of a bulk. Raises NoSession."""
    try:
        text = content.decode()
        found = None if nests_deeper(text, _DEEPEST) else json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        _refuse("a bulk, or a slice of it, is no JSON list")
    return found


def _cid(text: object) -> str:
    """The CID of a file of a bulk. Raises NoSession."""
    if not isinstance(text, str) or not _CID.fullmatch(text):
        _refuse("a bulk, or a slice of it, is not named by a CIDv0")
    return text


def _refuse(why: str) -> NoReturn:
    """Raise NoSession for a bulk that cannot be served."""
    # It may repeat what a requester wrote.
    raise NoSession(error=SessionError.NO_DATASET_KEY, why=why[:WHY_CHARACTERS])
