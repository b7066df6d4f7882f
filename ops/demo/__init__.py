"""`sluice demo`: the whole product on one machine, from deals to money, with live progress and a report.

Only stages and shows; the pool it starts is the real one (`ops.pool`), the deals are made by `ops.market`.
"""
