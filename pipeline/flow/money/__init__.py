"""Keeps the books of the scheduler's wallet, and moves its stake."""
