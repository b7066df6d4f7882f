"""What a container can reach: its bridge, names it may ask for, the packet filter, and checks from inside."""
