"""`sluice …`: what the pool earns, spends, sells and sends."""
