"""Collection `tasks`: its document form, and every query on tasks and their embedded replicates."""
