"""The operator's API: routes below `/admin` on the operations port, of which the commands of `sluice` are the client.

What stands where, why it does not go on, and what an operator may change; `access` decides who may. Here live routes
and their answers' shapes; decisions, queries and words come from `pipeline.domain`, `pipeline.store` and
`pipeline.flow`. Nothing here is for workers or requesters: their API is one folder up.
"""

from __future__ import annotations
