"""`sluice …`: what runs: a new pool's files, the scheduler, a worker machine, the local stack, the demo."""
