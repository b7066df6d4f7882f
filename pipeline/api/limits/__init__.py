"""What keeps one caller from costing the others: sizes, rates, answers that are made once for all."""
