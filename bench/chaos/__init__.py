"""Many faults in a row on one pool, with hostile machines among its own: how does every task end, and how much later?

plan      which fault comes when: a pure function of seed, tasks and pace
relay     loopback connections of scheduler and machines to the servers, which can be held up: a partition
injector  carries the plan out
following when each task ended on chain, and what is not ended and why
figures   the line of JSON
run       the undisturbed run, then the disturbed one
"""
