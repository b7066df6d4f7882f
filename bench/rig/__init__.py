"""What several benchmarks are made of: a pool of its own, machines, bare rates, figures and ratios."""
