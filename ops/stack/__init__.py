"""The local stack: one file per real part (database, broker, chain, Docker engine, IPFS), and what they share.

Here lives how a part is found, started, known to be ready and stopped. What the parts are used for (contracts, queues,
images, deals) lives elsewhere; nothing outside `ops` and the tests imports this package.
"""
