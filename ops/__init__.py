"""What people run: the command line, the local stack, PoCo on a dev chain, the market side, demo and load.

Nothing imports `ops`; it may import everything.
"""
