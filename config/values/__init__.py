"""What settings are made of: types, names of variables, nodes, files that settings name."""
