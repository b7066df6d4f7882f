"""Ethereum's own encodings: keccak, RLP, transactions, signatures, EIP-712, multiaddresses. Pure."""
