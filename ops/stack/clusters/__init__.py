"""Clusters of three servers on one machine, each at an address of its own, and partitions between them."""
