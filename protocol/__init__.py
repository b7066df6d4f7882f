"""What the two sides and the contracts agree on: ids, hashes, signatures, orders, weights, events, wire messages.

Pure: nothing here opens a file, a socket or a clock. Everything else may import it; it imports nothing of ours.
"""
