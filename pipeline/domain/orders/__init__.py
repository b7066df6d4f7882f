"""What the pool offers on the market: which orders to sign and withdraw, and how much room machines have. Pure."""
