"""Following the chain: blocks and PoCo logs without gaps, through reorganisations and restarts."""
