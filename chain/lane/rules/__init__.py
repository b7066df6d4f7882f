"""The lane's decisions, each a table or a function: readiness, gas, fees, encoding, what a refusal means."""
