"""The lane: every transaction of one wallet, one after the other, each exactly once.

An *intent* ("finalize this task") is stored once under a unique key. A short run gives it a nonce as late as possible,
stores the signed bytes, sends them, and confirms them in later runs. The same code serves the scheduler (MongoDB) and a
worker (SQLite).

                      submit (unique key)
                          │
                          ▼   not ready: wait, or go behind what is pending (SLUICE_STATE)
       ┌─────────────► QUEUED ─────────────────────► DONE      the chain is already so
       │                  │ └──────────────────────► FAILED    it can never be so; `reason` in words
       │   insert nonce record (`_id` = chain:wallet:nonce) with the signed bytes
       │                  ▼
       │                SENT ◄──────────────┐  same bytes again after a drop, a restart, a reorg;
       │                  │                 │  a fee bump at the same nonce if the price is the problem
       │     account nonce passes the nonce,│
       │       a receipt of one attempt     │
       │          ┌───────┴──────┐          │
       │      reverted         success      │
       └── judged again          ▼          │
           (3 times)           MINED ───────┘ block gone
                                 │ `finality` blocks deep
                                 ▼
                               FINAL     (a deeper reorg: as if it were MINED)

What it guarantees, as long as the store keeps what it acknowledged:

1.  An intent key is acted on once. Submitting it again changes nothing, whatever crashed in between.
2.  No two transactions of this lane that differ in what they do are ever signed for one nonce, except to replace: a
    fee bump does the same, and a no-op replacement (0-value self-transfer) spends the nonce without it. All attempts
    are stored before they are sent, and receipts are looked for under all their hashes.
3.  An intent is at one nonce at a time. It leaves a nonce only when a receipt proves that it was spent without it.
4.  Nonces have no gaps: a nonce is claimed by inserting its record, in order; a hole is filled at its exact nonce.
5.  Every crash (`kill -9`, power) between any two steps is repaired by the next run of any process.
6.  Two processes never disturb each other: a lease keeps runs apart, and where a pause outlives the lease, the fence in
    every write and the unique keys refuse the late one.
7.  A block that disappears puts its intents back, and the same bytes are sent again.
8.  If a final block shows that a nonce was spent by a transaction that is not ours, the lane stops until an operator
    decides. The log, its status, the scheduler's health and a metric report it.
9.  What a node cannot tell decides nothing. A receipt that is not to be seen is asked for again; a lane that waits for
    what it cannot repair reports it in the same places, and goes on by itself.

What it does not guarantee:

-   Delivery in time. A deadline may pass while the chain is full, the node is down or the wallet is empty; then the
    intent ends as FAILED with that reason.
-   That a call which reverted never executes: a reorg may put it into another block where it succeeds, before its old
    nonce is spent on nothing instead. The intent comes back to that nonce, unless it is at a second, higher one by
    then. PoCo refuses the second of two equal calls, so this costs gas, not money.
-   Order between intents. They get nonces oldest first, but one that must wait does not hold up the others.
-   Anything, if the same key is used by another program at the same time.
-   FINAL beyond the depth it is configured for. A deeper reorg is noticed and repaired as well, with an error in the
    log, but FINAL was said too early.

Modules: `model` (`intent`, `nonce`: values and their states; `policy`), `store` (`port`, `mongo`, `sqlite`), `run` (one
run), `phases` (`snapshot`, `confirm`, `repair`, `send`; `proof`: which transaction spent a nonce; `release`: what
becomes of intents that leave theirs; `early`: steps that share a block), `rules` (pure decisions: `gas`, `fees`,
`refusals`, `send_errors`, `waits`; `poco`: what PoCo allows, `poco_lane` makes a lane; `depth`: send only on what is
settled; `order`: who comes first in a block; `early`: whether steps may still share one), `admin` and `audit` (for
operators).
"""
