"""One task on this machine: compute, verdict, votes, steps, journal."""
