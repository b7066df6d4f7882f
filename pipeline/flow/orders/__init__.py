"""Carries out what `pipeline.domain.orders` decides: signs, asks the market API, closes on chain."""
