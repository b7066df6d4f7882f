"""One module for each server of the local stack: its configuration, its start, and whether it is ready."""
