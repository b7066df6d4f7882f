"""A complete pool on the local stack: contracts, wallets, scheduler and worker processes. For demo, bench and tests.

Starts the same commands an operator would; holds no scheduling logic.
"""
