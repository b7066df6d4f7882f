"""Load, decide, save, act: what carries out the decisions of `pipeline.domain`."""
