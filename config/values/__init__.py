"""What settings are made of (types, names of variables, addresses, files that they name); those of all processes, of a
scheduler and of a worker machine, which `config.settings` puts together; and those of one part alone: the local
stack's, the secret service's.
"""
