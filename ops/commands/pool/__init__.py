"""`sluice …`: the pool as a whole: its state, who may work, its chain, pause and drain."""
