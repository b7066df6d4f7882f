"""What the operator's commands share: the client of the operator's API, and how its answers look in a terminal.

The commands themselves are in `ops.commands`; what they show is decided by the API (`pipeline.api.admin`).
"""
