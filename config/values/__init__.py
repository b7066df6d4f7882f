"""What settings are made of (types, names of variables, addresses, files that they name), and those of one part alone:
the local stack's, the secret service's.
"""
