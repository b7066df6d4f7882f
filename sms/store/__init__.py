"""Where encrypted secrets, challenges and sessions are: a port, and MongoDB or an SQLite file behind it."""
