"""What goes into a task and what comes out: folders, inputs, downloads, output trees, zips."""
