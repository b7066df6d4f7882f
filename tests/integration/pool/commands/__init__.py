"""Commands that an operator types beside a pool at work: those of Sluice, and those of Celery."""
