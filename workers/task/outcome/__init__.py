"""How an app ended, and what that says: kept across restarts, the cause of a failure, whose fault it is."""
