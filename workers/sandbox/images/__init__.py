"""Images of apps: fetched for a deal by their full name, sent to the engine, kept and removed."""
