"""How the pool as a whole is: the facts that were found, what it can do with them, and whether it holds. Pure."""
