"""How a machine talks to its pool: settings, HTTP API, session, RabbitMQ, reports."""
