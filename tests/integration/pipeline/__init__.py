"""The scheduler on real parts: MongoDB, RabbitMQ, a chain with PoCo; worker machines are driven by hand."""
