"""iExec SMS's HTTP API, as the SDK (8 and 9), schedulers and workers call it."""
