"""What the clock's task `tidy` does: results kept or unpinned, records of ended deals removed. Decides no task."""
