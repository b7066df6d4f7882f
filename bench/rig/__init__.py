"""Parts that several benchmarks share: a pool of its own, machines, bare rates, figures and ratios."""
