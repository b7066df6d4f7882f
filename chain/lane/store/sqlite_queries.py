"""The SQL of the lane's SQLite file: schema, and every query by name.

Each query that looks for something says by which index: left to itself, SQLite prefers the primary key, and reads the
whole past of a wallet to find the few rows that are open. `tests/unit/chain/lane/store/test_stores.py` checks each.
States are given as a fixed number of parameters (`pad_states`), so that the text of a query never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

SCHEMA = """
CREATE TABLE IF NOT EXISTS intents (
    key TEXT PRIMARY KEY, lane TEXT NOT NULL, state TEXT NOT NULL, created_at REAL NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0, document TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS intents_by_state ON intents (lane, state, created_at, key);
CREATE TABLE IF NOT EXISTS nonces (
    lane TEXT NOT NULL, nonce INTEGER NOT NULL, state TEXT NOT NULL, block INTEGER,
    fence INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (lane, nonce)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_by_state ON nonces (lane, state, nonce);
CREATE INDEX IF NOT EXISTS nonces_by_time ON nonces (lane, json_extract(document, '$.created_at'), nonce);
CREATE TABLE IF NOT EXISTS carried (key TEXT PRIMARY KEY, lane TEXT NOT NULL, nonce INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    lane TEXT PRIMARY KEY, holder TEXT NOT NULL, fence INTEGER NOT NULL, until REAL NOT NULL,
    halted TEXT, waiting TEXT) WITHOUT ROWID;
"""
#: Columns that files of an earlier release lack: table, column, type.
ADDED_COLUMNS = (("leases", "waiting", "TEXT"),)

# -- intents -----------------------------------------------------------------------------------------------------------
INTENT = "SELECT document FROM intents WHERE key = ?"
#: The parameter is a JSON list: any number of keys in one statement.
INTENTS = "SELECT document FROM intents WHERE key IN (SELECT value FROM json_each(?))"
INTENTS_IN_STATE = (
    "SELECT document FROM intents INDEXED BY intents_by_state WHERE lane = ? AND state = ?"
    " ORDER BY created_at, key LIMIT ? OFFSET ?"
)
COUNT_INTENTS = (
    "SELECT COUNT(*) FROM intents INDEXED BY intents_by_state WHERE lane = ? AND state IN (?, ?, ?, ?, ?, ?)"
)
ANY_INTENT = (
    "SELECT EXISTS (SELECT 1 FROM intents INDEXED BY intents_by_state WHERE lane = ? AND state IN (?, ?, ?, ?, ?, ?))"
)
PUT_INTENT = (
    "INSERT INTO intents (key, lane, state, created_at, document) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key) DO UPDATE SET state = excluded.state, document = excluded.document"
)
MOVE_INTENT = "UPDATE intents SET state = ?, fence = ?, document = ? WHERE key = ?"

# -- nonces ------------------------------------------------------------------------------------------------------------
NONCE = "SELECT document FROM nonces WHERE lane = ? AND nonce = ?"
#: The last parameter twice: the highest block, or NULL for any.
NONCES_IN_STATES = (
    "SELECT document FROM nonces INDEXED BY nonces_by_state WHERE lane = ? AND state IN (?, ?, ?, ?, ?, ?)"
    " AND (? IS NULL OR block <= ?)"
)
NEWEST_IN_STATE = (
    "SELECT document FROM nonces INDEXED BY nonces_by_state WHERE lane = ? AND state = ? AND nonce < ?"
    " ORDER BY nonce DESC LIMIT ?"
)
LOWEST_IN_STATE = (
    "SELECT nonce FROM nonces INDEXED BY nonces_by_state WHERE lane = ? AND state = ? ORDER BY nonce LIMIT 1"
)
ANY_NONCE = (
    "SELECT EXISTS (SELECT 1 FROM nonces INDEXED BY nonces_by_state WHERE lane = ? AND state IN (?, ?, ?, ?, ?, ?))"
)
HIGHEST_NONCE = "SELECT MAX(nonce) FROM nonces WHERE lane = ?"
HOLDING = (
    "SELECT nonces.document FROM carried CROSS JOIN nonces ON nonces.lane = carried.lane"
    " AND nonces.nonce = carried.nonce WHERE carried.key = ? AND carried.lane = ?"
)
FIRST_SINCE = (
    "SELECT nonce FROM nonces INDEXED BY nonces_by_time WHERE lane = ? AND json_extract(document, '$.created_at') >= ?"
    " ORDER BY json_extract(document, '$.created_at'), nonce LIMIT 1"
)
#: The `+` keeps the planner from the index by state, which would read the whole past.
FEES_FROM = (
    "SELECT nonce, json_extract(document, '$.created_at'), json_extract(document, '$.mined.fee') FROM nonces"
    " WHERE lane = ? AND nonce >= ? AND +state IN (?, ?) ORDER BY nonce"
)
PUT_NONCE = "INSERT INTO nonces (lane, nonce, state, fence, document) VALUES (?, ?, ?, ?, ?)"
MOVE_NONCE = "UPDATE nonces SET state = ?, block = ?, fence = ?, document = ? WHERE lane = ? AND nonce = ?"
CARRY = "INSERT INTO carried (key, lane, nonce) VALUES (?, ?, ?)"
CARRY_NO_MORE = "DELETE FROM carried WHERE key = ?"

# -- what ended long ago -----------------------------------------------------------------------------------------------
OLD_NONCES = (
    "SELECT nonce, document FROM nonces INDEXED BY nonces_by_time WHERE lane = ?"
    " AND json_extract(document, '$.created_at') < ? AND nonce < ? AND state IN (?, ?)"
    " ORDER BY json_extract(document, '$.created_at'), nonce LIMIT ?"
)
DELETE_NONCE = "DELETE FROM nonces WHERE lane = ? AND nonce = ?"
DELETE_OLD_INTENTS = (
    "DELETE FROM intents WHERE key IN (SELECT key FROM intents INDEXED BY intents_by_state WHERE lane = ?"
    " AND state = ? AND created_at < ? AND NOT EXISTS (SELECT 1 FROM carried WHERE carried.key = intents.key)"
    " ORDER BY created_at, key LIMIT ?)"
)

# -- the lease ---------------------------------------------------------------------------------------------------------
LEASE = "SELECT holder, fence, until, halted, waiting FROM leases WHERE lane = ?"
TAKE_LEASE = (
    "INSERT INTO leases (lane, holder, fence, until) VALUES (?, ?, ?, ?) ON CONFLICT (lane)"
    " DO UPDATE SET holder = excluded.holder, fence = excluded.fence, until = excluded.until"
)
RENEW_LEASE = "UPDATE leases SET until = ? WHERE lane = ? AND fence = ?"
HALT = (
    "INSERT INTO leases (lane, holder, fence, until, halted) VALUES (?, '', 0, 0, ?)"
    " ON CONFLICT (lane) DO UPDATE SET halted = excluded.halted"
)
WAIT = "UPDATE leases SET waiting = ? WHERE lane = ?"

#: Parameters that `pad_states` fills.
_STATES = 6


def pad_states(wanted: Sequence[str]) -> tuple[str, ...]:
    """States as parameters of a query with a fixed number of them: the last one is repeated."""
    return (*wanted, *[wanted[-1]] * (_STATES - len(wanted)))
