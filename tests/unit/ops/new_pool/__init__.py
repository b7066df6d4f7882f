"""What `sluice init` writes, and the containers and alerts beside it."""
