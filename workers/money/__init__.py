"""What a machine pays, risks and earns, by limits of its own: no pool, node or requester decides over them."""
