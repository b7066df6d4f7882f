"""What the pool offers on the market: each test has a pool, and a stand-in of the market, of its own."""
