"""What `sluice worker …` does beside running: set up, stop, show, money."""
