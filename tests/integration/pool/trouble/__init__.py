"""A pool that is broken on purpose, with a MongoDB and a RabbitMQ of its own: each test leaves it as whole as it was.

`each_fault` and `same_block` are `make test-faults`.
"""
