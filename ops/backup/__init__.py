"""Backup and restore of what the chain does not give back: the scheduler's database and, if asked for, its keys.

`take` writes the archive, `put_back` reads it; both work without the scheduler. `contents` says what is in one.
"""
