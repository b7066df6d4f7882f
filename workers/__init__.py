"""One worker machine: enrols, takes tasks from its own queues, runs apps in Docker, votes, reveals, uploads.

    machine.py ──forks──► consume.py (compute queue) ─► tasks.py ─► compute.py ─► container.py ─► Docker
               ──forks──► consume.py (tx queue) ──────► tasks.py ─► votes.py ───► chain.lane (SQLite)
               ──forks──► pulse.py (ping, new heads, resume)

The journal is the truth, a message is a wake-up. Knows the scheduler only by its HTTP API and its own two queues;
must not import `pipeline`, and must not trust an app's image, its output, or a URL that comes from a deal.
"""
