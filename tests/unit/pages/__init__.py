"""The pages name what exists."""
