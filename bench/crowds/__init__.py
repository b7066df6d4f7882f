"""Benchmarks with many machines or wallets: honest, idle, hostile, or coming and going."""
