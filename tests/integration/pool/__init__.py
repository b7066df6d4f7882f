"""Tests of whole pools: `sluice scheduler run` and `sluice worker run` as processes, on real servers and contracts.

What one part does alone is tested beside that part; here is what only all of them together can get wrong.
"""
