"""Results on their way in: read the zip, check it against the vote, store it in IPFS."""
