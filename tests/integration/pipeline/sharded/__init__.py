"""What holds where MongoDB is sharded: which shards a query asks, and a whole pool over it (`make test-sharded`)."""
