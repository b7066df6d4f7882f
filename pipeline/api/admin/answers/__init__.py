"""What the operator's API answers: models for JSON, and how records become their lines. No I/O."""
