"""The other side of the pool: owners who offer an app, a dataset and a workerpool, and requesters who buy.

The demo, the benchmarks and the tests use the market through these modules. The scheduler and the workers never do.
"""

from __future__ import annotations
