"""The database as a whole: who uses it, copies of it, its shards, and rows of earlier releases."""
