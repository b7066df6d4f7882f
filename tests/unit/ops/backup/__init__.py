"""A backup and what is put back of it."""
