"""What a process is set up with and kept alive by: garbage collector, values of its own, a supervisor."""
