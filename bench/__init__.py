"""Measurements of the whole pool on the local stack. Each prints one line of JSON per figure; none is a test.

make bench ARGS="latency --block-time 1 --tasks 20 --json"
"""
