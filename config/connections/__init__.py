"""How every process connects to servers: HTTP, MongoDB, RabbitMQ's nodes and TLS, IPFS. No server of our own."""
