"""The real PoCo contracts on a development chain: read from npm, linked, deployed once, kept as a saved chain state.

    node_modules ──artifacts──► deploy ──► anvil_dumpState ──► <home>/cache/poco-<key>.json
                                                                        │ next start: < 1 s
                                                                        ▼
                                                                 anvil --load-state

Nothing here knows deals or orders (that is `ops.market`), and nothing outside a development chain uses it.
"""

from __future__ import annotations
