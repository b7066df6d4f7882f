"""Uploads of results."""
