"""The lane's records: intents, nonces, and the numbers it goes by. Pure."""
