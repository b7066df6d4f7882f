"""How a process is set up: settings, connections, Celery apps and queue topology, logging, metrics.

Reads the environment once, at start. Must not know the chain, the stores or any decision.
"""
