"""The scheduler: what to do for each task, who does it, its store, its queues and its HTTP API.

`decide` and `match` are pure; everything else here carries out what they say. Never imported by `workers`.
"""
