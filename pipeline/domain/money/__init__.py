"""The books of the scheduler's wallet: what its transactions cost, what it earned, whether that adds up. Pure."""
