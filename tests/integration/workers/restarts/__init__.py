"""A machine that is killed or stopped, and started again."""
