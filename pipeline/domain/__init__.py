"""Deals, tasks and workers as frozen values, and every decision about them. Pure: no I/O in here."""
