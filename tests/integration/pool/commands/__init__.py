"""What people are shown of a pool: Flower, the web page, RabbitMQ, Prometheus."""
