"""What requesters, the secret service and enclaves exchange: encrypted files, names of secrets, sessions. Pure."""
