"""Load, decide, save, act: what carries out the decisions of `pipeline.domain`.

Here is what brings a task forward; beside it are folders for the pool's orders, money, machines, audit and clean-up.
"""
