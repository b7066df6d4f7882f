"""The scheduler: what to do for each task, who does it, its store, its queues and its HTTP API.

`domain` decides and is pure; everything else here carries out what it says. Never imported by `workers`.
"""
