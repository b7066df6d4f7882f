"""Where encrypted secrets, challenges and sessions are: a port, and MongoDB behind it."""
