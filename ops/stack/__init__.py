"""The local stack: its servers (database, broker, chain, Docker engine, IPFS), one file each, and what they share.

Here lives how a part is found, started, known to be ready and stopped. What the parts are used for (contracts, queues,
images, deals) lives elsewhere; nothing outside `ops` and the tests imports this package.
"""
