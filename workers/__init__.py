"""One worker machine: signs in, runs containers in the sandbox, votes, reveals, uploads; keeps a journal.

Assumes nothing of the scheduler's inside: it knows the wire messages, its two queues and the chain.
"""
