"""`sluice init`: from a node, a workerpool and its owner's wallet to the files that a scheduler starts with.

`questions` asks or takes options, `checks` holds each answer against the node, `files` writes.
"""
