"""What an app and a machine reach, and what they must not."""
