"""Tasks for enclaves on this machine: the port behind which kinds of enclave stand, sessions, pre- and post-compute."""
