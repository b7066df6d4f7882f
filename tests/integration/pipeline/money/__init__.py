"""What the pool earned and spent, and what it keeps of that."""
