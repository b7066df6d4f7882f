"""`sluice …`: what runs: scheduler, worker machine, secret service, local stack, demo; and a new pool's files."""
