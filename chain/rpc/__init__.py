"""JSON-RPC: one node, several nodes behind one interface, and new block numbers. Nothing here knows PoCo."""
