"""RabbitMQ as the scheduler uses it: notifications, the workers' chains, users and permissions, Flower."""
