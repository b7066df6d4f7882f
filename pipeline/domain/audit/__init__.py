"""Database, chain, RabbitMQ and IPFS compared: `views` of each, `compare` purely, into `findings` with their repairs.
`pipeline.flow.audit.run` reads the views, page by page, and carries repairs out.
"""
