"""Deals, tasks and workers as frozen values, and every decision about them. Pure: no I/O in here.

Here is what is decided about a task; beside it are folders for orders, money, machines, the pool's condition, audit.
"""
