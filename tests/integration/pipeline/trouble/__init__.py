"""Parts that are away, stand still or die, and what an operator is told of it."""
