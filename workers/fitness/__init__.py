"""Whether this machine can work: doctor, checkup, clock, status."""
