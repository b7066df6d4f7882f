"""What the benchmarks compute and draw."""
