"""What the pool offers on the market: which orders to sign and withdraw, and how much capacity machines have. Pure."""
