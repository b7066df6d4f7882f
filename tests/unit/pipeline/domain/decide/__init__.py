"""What is decided about a task, and what the decisions lead to."""
