"""Lets machines in, bans them, and counts why they got no task."""
