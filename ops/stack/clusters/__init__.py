"""Clusters on one machine: three servers, each at its own address, and partitions between them; MongoDB sharded."""
