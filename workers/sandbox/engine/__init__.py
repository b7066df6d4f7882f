"""The Docker engine as Sluice talks to it: client, errors, one container and what it printed."""
