"""`sluice …`: what runs: a new pool's files, the scheduler, a worker machine, the secret service, the local stack, the demo."""
