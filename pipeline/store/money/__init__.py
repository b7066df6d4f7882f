"""What the wallet's transactions cost, what the hub moved for it, and the transfer that is under way."""
