"""`sluice init`: from a node, a workerpool and its owner's wallet to the files that a scheduler starts with.

`questions` asks or takes options, `checks` checks each answer at the node, `files` writes.
"""
