"""Running a stranger's app: what its container may do, the run itself, disk limits, and a rehearsal before any task.

Beside it are folders for the Docker engine, for images and for what apps can reach.
"""
