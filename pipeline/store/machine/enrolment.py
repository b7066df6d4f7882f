"""Collection `enrolment`: the policy that commands have set, the lists of wallets, and invites.

_id "policy"            what differs from the settings
_id <wallet>            kind "list": on the allow or the deny list
_id "invite:<name>"     kind "invite": uses, who used it; `name` is the beginning of the code's SHA-256, never the code

Every process reads what it needs at each sign-in, so a change holds at once for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo import DESCENDING, IndexModel
from pymongo.collection import Collection
from pymongo.database import Database

from pipeline.domain.machines.enrolment import Invite, Listing, Mode, Policy
from protocol.types import NRlc, Wallet

INDEXES = [IndexModel([("kind", DESCENDING), ("at", DESCENDING)], name="by_kind")]
_POLICY, _LIST, _INVITE = "policy", "list", "invite"
#: Hex digits of a code's hash that name its invite: nobody finds another code with the same.
NAME_DIGITS = 32
#: Wallets named in one query: some 60 KB, far below what MongoDB takes.
LISTINGS = 1000


@dataclass(frozen=True, slots=True)
class Listed:
    """A wallet on one of the lists. `at`: Unix seconds."""

    wallet: Wallet
    listing: Listing
    at: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored about one sign-in."""

    #: What commands have set of the policy, by field.
    overrides: Mapping[str, Any]
    listing: Listing | None
    invite: Invite | None


def invite_name(code: str) -> str:
    """The name under which the invite of a code is stored: a hash, from which the code cannot be found."""
    return hashlib.sha256(code.encode()).hexdigest()[:NAME_DIGITS]


def overridden(policy: Policy, overrides: Mapping[str, Any]) -> Policy:
    """The settings' policy, with the fields that commands have set in place of its own."""
    now = {name: overrides.get(name, getattr(policy, name)) for name in Policy.__slots__}
    return Policy(
        mode=Mode(now["mode"]),
        least_stake=NRlc(int(now["least_stake"])),
        least_score=int(now["least_score"]),
        most_machines=now["most_machines"],
        most_per_address=now["most_per_address"],
    )


class Enrolment:
    """Queries on `enrolment`."""

    def __init__(self, db: Database[dict[str, Any]]) -> None:
        self._rows: Collection[dict[str, Any]] = db["enrolment"]

    def ensure_indexes(self) -> None:
        """Create the indexes."""
        self._rows.create_indexes(INDEXES)

    def entry(self, wallet: Wallet, code: str | None = None) -> Entry:
        """All that is stored about a wallet that signs in: what commands changed of the policy, the wallet's list, and
        the invite behind `code`. One query.
        """
        ids = [_POLICY, wallet, *([] if code is None else [_invite_id(invite_name(code))])]
        rows = {row["_id"]: row for row in self._rows.find({"_id": {"$in": ids}})}
        listed = rows.get(wallet)
        invite = None if code is None else rows.get(ids[-1])
        return Entry(
            overrides=_overrides(rows.get(_POLICY)),
            listing=None if listed is None else Listing(listed["listing"]),
            invite=None if invite is None else _invite(invite, wallet),
        )

    # -- the policy -----------------------------------------------------------------------------------------------

    def overrides(self) -> Mapping[str, Any]:
        """The fields of the policy that commands have set, by name; the other fields are as the settings say."""
        return _overrides(self._rows.find_one({"_id": _POLICY}))

    def override(self, changes: Mapping[str, Any]) -> None:
        """Set these fields of the policy, for the running pool; the others stay."""
        self._rows.update_one({"_id": _POLICY}, {"$set": {"kind": _POLICY, **changes}}, upsert=True)

    def reset(self) -> None:
        """Go back to the settings' policy: delete all that commands have set of it."""
        self._rows.delete_one({"_id": _POLICY})

    # -- the lists ------------------------------------------------------------------------------------------------

    def put(self, wallet: Wallet, listing: Listing, now: float, note: str = "") -> None:
        """Put a wallet on a list, and off the other."""
        row = {"kind": _LIST, "listing": str(listing), "at": now, "note": note}
        self._rows.update_one({"_id": wallet}, {"$set": row}, upsert=True)

    def put_if_absent(self, wallet: Wallet, listing: Listing, now: float, note: str) -> Listing:
        """Put a wallet on a list unless it is on one; returns the list that it is on afterwards."""
        row = {"kind": _LIST, "listing": str(listing), "at": now, "note": note}
        self._rows.update_one({"_id": wallet}, {"$setOnInsert": row}, upsert=True)
        return self.listing(wallet) or listing

    def listing(self, wallet: Wallet) -> Listing | None:
        """The list that a wallet is on (allow or deny); None if it is on neither."""
        row = self._rows.find_one({"_id": wallet})
        return None if row is None else Listing(row["listing"])

    def listings(self, wallets: Sequence[Wallet]) -> dict[Wallet, Listing]:
        """The list of each of these wallets that is on one; one query per LISTINGS wallets."""
        found: dict[Wallet, Listing] = {}
        for start in range(0, len(wallets), LISTINGS):
            rows = self._rows.find({"_id": {"$in": list(wallets[start : start + LISTINGS])}}, {"listing": 1})
            found |= {Wallet(row["_id"]): Listing(row["listing"]) for row in rows}
        return found

    def forget(self, wallet: Wallet) -> bool:
        """Take a wallet off its list. False: it was on none."""
        return self._rows.delete_one({"_id": wallet}).deleted_count == 1

    def listed(self, limit: int) -> list[Listed]:
        """At most `limit` wallets of the allow and deny lists, the newest first."""
        rows = self._rows.find({"kind": _LIST}).sort("at", DESCENDING).limit(limit)
        return [Listed(Wallet(row["_id"]), Listing(row["listing"]), row["at"], row.get("note", "")) for row in rows]

    # -- invites --------------------------------------------------------------------------------------------------

    def invite(self, code: str, uses: int, expires_at: float, now: float) -> str:
        """Store an invite and return its name."""
        name = invite_name(code)
        row = {"kind": _INVITE, "at": now, "uses": uses, "used_by": [], "expires_at": expires_at}
        self._rows.update_one({"_id": _invite_id(name)}, {"$setOnInsert": row}, upsert=True)
        return name

    def has_invite(self, name: str) -> bool:
        """Whether there is an invite of this name."""
        return self._rows.find_one({"_id": _invite_id(name), "kind": _INVITE}, {"_id": 1}) is not None

    def withdraw(self, name: str) -> bool:
        """Delete an invite; whom it admitted stays on the allow list. False: there is none."""
        return self._rows.delete_one({"_id": _invite_id(name), "kind": _INVITE}).deleted_count == 1

    def use(self, code: str, wallet: Wallet, now: float) -> bool:
        """Count one use of an invite, once per wallet. False: the invite is used up, has expired, or is gone."""
        left = {"$expr": {"$lt": [{"$size": "$used_by"}, "$uses"]}}
        query = {"_id": _invite_id(invite_name(code)), "expires_at": {"$gt": now}, "$or": [{"used_by": wallet}, left]}
        return self._rows.update_one(query, {"$addToSet": {"used_by": wallet}}).matched_count == 1

    def invites(self, limit: int) -> list[Invite]:
        """At most `limit` invites, the newest first, expired ones too."""
        return [_invite(row) for row in self._rows.find({"kind": _INVITE}).sort("at", DESCENDING).limit(limit)]


def _invite_id(name: str) -> str:
    """The key of an invite's row."""
    return f"{_INVITE}:{name}"


def _invite(row: Mapping[str, Any], wallet: Wallet | None = None) -> Invite:
    """The invite in a stored row. `wallet`: who asks about it."""
    used_by = row["used_by"]
    name = row["_id"].partition(":")[2]
    return Invite(name, row["uses"], len(used_by), row["expires_at"], used_by_applicant=wallet in used_by)


def _overrides(row: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The policy's fields that commands have set."""
    return {name: row[name] for name in Policy.__slots__ if name in row} if row else {}
