"""What a machine puts on chain, and in which order."""
