"""What a machine does beside its tasks: the process `upkeep` and its parts, unasked reveals, pruning. Runs no app."""
