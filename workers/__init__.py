"""One worker machine: enrols, takes tasks from its own queues, runs apps in Docker, votes, reveals, uploads.

    machine.py ──forks──► Celery worker (compute queue) ─► tasks.py ─► task/compute.py ─► sandbox/ ─► Docker
               ──forks──► Celery worker (tx queue) ──────► tasks.py ─► task/votes.py ───► chain.lane (SQLite)
               ──forks──► care/upkeep_process.py (ping, new heads, lost messages)

State is kept in the journal; a Celery message only says which task to look at. Knows the scheduler only by its HTTP API
and its own two queues; must not import `pipeline`, and must not trust an app's image, its output, or a URL that comes
from a deal.
"""
