"""The other side of the pool: owners who offer an app, a dataset and a workerpool, and requesters who buy.

What the demo, the benchmarks and the tests do to the market goes through here. The scheduler and the workers never do.
"""

from __future__ import annotations
