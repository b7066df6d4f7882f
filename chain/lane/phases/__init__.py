"""The phases of one run of a lane: take a snapshot of the chain, confirm, repair, send."""
