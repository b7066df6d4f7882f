"""Compares database, chain, RabbitMQ and IPFS with each other, and repairs what is safe."""
