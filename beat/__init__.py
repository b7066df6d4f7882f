"""What the clock and the chain start: following blocks, sweeping open tasks, claiming, purging.

Only wakes things up: deciding and doing live in `pipeline`.
"""
