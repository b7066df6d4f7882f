"""Ethereum I/O: RPC, contract reads, log decoding, the block watcher, wallets and the transaction lane.

Knows PoCo's contracts, but no deal policy: what to do about an event is decided in `pipeline` or `workers`.
"""
