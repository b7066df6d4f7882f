"""Tasks for enclaves on this machine: the port that kinds of enclave implement, sessions, and the containers of pre-
and post-compute with the worker's HTTP endpoint (its *door*) in their network.
"""
