"""Tasks for enclaves on this machine: the port behind which kinds of enclave stand, sessions, and the containers of
pre- and post-compute with the worker's door in their network.
"""
