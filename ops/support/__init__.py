"""`sluice support-bundle`: what somebody needs who helps a pool's operator, in one archive without a secret in it.

`secrets` knows what must not be in it, `bundle` gathers the rest.
"""
