"""RabbitMQ, as the API gives workers a place there."""
