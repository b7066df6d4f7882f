"""What the PoCo contracts define: ids, authorizations, votes, weights, deadlines, tags, orders, events. Pure."""
