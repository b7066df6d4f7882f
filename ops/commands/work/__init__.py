"""`sluice …`: deals and tasks, why they wait, and what is stuck between."""
