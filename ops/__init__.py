"""What people run: the command line, backups, the local stack, PoCo on a dev chain, the market side, the demo.

Nothing imports `ops`; it may import everything.
"""
