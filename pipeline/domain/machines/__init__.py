"""Who may work, what each machine does, and why one gets no work. Pure."""
