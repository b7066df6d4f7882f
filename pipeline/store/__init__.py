"""MongoDB: one module per collection, with its indexes, its document form and every query on it.

deals ── tasks (replicates embedded) ── logs (chain events of a task) ── blocks ── cursors
workers                                 outputs (what apps printed)

Here are the collections of the pool as a whole; beside them are folders for tasks, machines and money.

Every state change is one conditional update on one document. No decision lives here.
"""
