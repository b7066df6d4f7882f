"""What every HTTP server of Sluice that strangers reach has: limits of connections, of time, and of how often they ask.

Only servers import this: a worker machine has no FastAPI.
"""
