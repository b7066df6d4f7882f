"""The dashboards, decoded by a small Go program with Grafana's published schema."""
