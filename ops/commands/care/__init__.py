"""`sluice …`: what keeps a pool in order: audit, backups, keys, settings, what helpers need."""
