"""What the pool offers on iExec's marketplace: one TOML or JSON file, named by SLUICE_ORDERS_FILE.

    market = "https://api.market.iex.ec"    unset: nothing is signed; `sluice orders plan` shows what would be
    renew_hours = 24                        an order is replaced when it is that old
    steady_seconds = 60                     shortest time between two orders of one offer that is not sold out
    close_on_chain = true                   close what is withdrawn on chain too, for gas: a copy of it stays good else

    [[offer]]                               one kind of work; free slots are shared out among all of them
    category = 0
    price = "0.1 RLC"                       for one task; "free" for nothing
    trust = 1                               the most trust that a requester gets
    tag = ["gpu"]                           what a machine must have: gpu, scone, gramine, tdx (these three at trust 1)
    share = 2                               of the free slots, in proportion to the other offers
    most = 100                              tasks offered at a time

Read at each run of the task that keeps the orders, so that an edit holds within seconds.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from config.connections.http_client import is_loopback
from protocol.amounts import amount_of
from protocol.errors import BadInput, BadSetting
from protocol.poco.tags import GPU_BIT, TEE_BIT, Framework, framework, make_tag, needs_enclave_signature
from protocol.types import Hash32, NRlc

SETTING = "SLUICE_ORDERS_FILE"
#: Tasks that one offer has on the market at a time, at most; more than the slots of the largest pool.
MOST_OFFERED = 100_000
#: Offers of one pool: the market takes 50 open orders of a wallet, and each offer may have some at a time.
MOST_OFFERS = 20
#: Most trust of an offer: more than three workers of the best standing reach, which no requester asks for.
MOST_TRUST = 10_000
#: Bits that a machine must have, by the names of the file; an enclave's kind has the bit of all enclaves too.
TAGS = {"gpu": GPU_BIT, "scone": TEE_BIT | 1 << 1, "gramine": TEE_BIT | 1 << 2, "tdx": TEE_BIT | 1 << 3}


def _price(value: object) -> NRlc:
    """nRLC of a price as it is written. Raises ValueError."""
    if value == "free":
        return NRlc(0)
    try:
        return amount_of(value if isinstance(value, str) else f"{value} without a unit")
    except BadInput as error:
        raise ValueError(f"{error} For nothing: `free`.") from error


def _tag(value: object) -> Hash32:
    """The tag of a list of names. Raises ValueError."""
    names = [str(name) for name in value] if isinstance(value, list) else [str(value)]
    unknown = [name for name in names if name not in TAGS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(TAGS)}")
    if len(set(names) - {"gpu"}) > 1:
        raise ValueError("a machine has one kind of enclave: name one of scone, gramine, tdx")
    return make_tag(*(TAGS[name] for name in names))


def _market(value: str) -> str:
    """The market's address without a slash at its end. Raises ValueError."""
    parts = urlsplit(value)
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or parts.username or parts.query or parts.fragment or not (parts.scheme == "https" or plain):
        raise ValueError("give an https:// address without user and query")
    return value.rstrip("/")


class _Model(BaseModel):
    """Base of the file's models: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Offer(_Model):
    """One kind of work that the pool sells."""

    category: int = Field(ge=0, lt=2**31)
    #: For one task.
    price: Annotated[NRlc, BeforeValidator(_price)]
    #: The most trust that a requester gets; more trust takes more machines for a task.
    trust: int = Field(1, ge=0, le=MOST_TRUST)
    tag: Annotated[Hash32, BeforeValidator(_tag)] = make_tag()
    share: float = Field(1.0, gt=0, le=1000, allow_inf_nan=False)
    most: int = Field(MOST_OFFERED, ge=1, le=MOST_OFFERED)

    @model_validator(mode="after")
    def _enclaves_alone(self) -> Offer:
        """Refuse an offer of enclaves at a trust above 1."""
        if self.for_enclaves and self.trust > 1:
            raise ValueError("what an enclave signs is served at trust 1 only")
        return self

    @property
    def for_enclaves(self) -> bool:
        """Whether its tasks need an enclave."""
        return needs_enclave_signature(self.tag)


class OrderPolicy(_Model):
    """What is offered, and how long an order lasts."""

    market: Annotated[str, AfterValidator(_market)] | None = None
    renew_hours: float = Field(24.0, gt=0, le=24 * 365, allow_inf_nan=False)
    steady_seconds: float = Field(60.0, ge=1, le=86400, allow_inf_nan=False)
    close_on_chain: bool = True
    offer: tuple[Offer, ...] = Field((), max_length=MOST_OFFERS)

    @model_validator(mode="after")
    def _each_once(self) -> OrderPolicy:
        """Refuse two offers of the same category, trust and tag."""
        seen: dict[tuple[int, int, Hash32], int] = {}
        for number, offer in enumerate(self.offer, 1):
            first = seen.setdefault((offer.category, offer.trust, offer.tag), number)
            if first != number:
                raise ValueError(f"offer {number} has the category, trust and tag of offer {first}")
        return self


#: The policy of a pool that offers nothing.
NO_OFFERS = OrderPolicy()


def read_policy(path: Path | None, *, enclaves: Collection[Framework] = frozenset(Framework)) -> OrderPolicy:
    """The policy in the file; one without offers if no file is set. Raises BadSetting, with every problem of the
    file.

    `enclaves`: kinds for which the pool names a secret service; of others, nothing may be offered.
    """
    if path is None:
        return NO_OFFERS
    try:
        text = path.read_text()
        data: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise _wrong(path, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _wrong(path, f"it is no {'JSON' if path.suffix == '.json' else 'TOML'} ({error})") from error
    try:
        policy = OrderPolicy.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        raise _wrong(path, "; ".join(f"{_place(item['loc'])}{_words(item['msg'])}" for item in problems)) from error
    for number, offer in enumerate(policy.offer, 1):
        if offer.for_enclaves and framework(offer.tag) not in enclaves:
            raise _wrong(path, f"offer {number}, tag: it needs enclaves that SLUICE_ENCLAVE_SMS_URL does not name")
    return policy


def _place(where: tuple[int | str, ...]) -> str:
    """Where in the file, as people count: `offer 2, price: `; nothing for the file as a whole."""
    parts = [f"offer {item + 1}" if isinstance(item, int) else item for item in where if item != "offer"]
    return f"{', '.join(parts) or 'offer'}: " if where else ""


def _words(message: str) -> str:
    """A validator's message without what pydantic puts around it."""
    return message.removeprefix("Value error, ").rstrip(".")


def _wrong(path: Path, why: str) -> BadSetting:
    """The error for a policy file that cannot be used."""
    return BadSetting(
        name=SETTING, why=f"{path}: {why}", fix="See docs/quickstart/operator.md, Offer work on the market."
    )
