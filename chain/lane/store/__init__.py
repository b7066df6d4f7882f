"""Where a lane keeps its records: the port, the lease, and MongoDB and SQLite behind it."""
