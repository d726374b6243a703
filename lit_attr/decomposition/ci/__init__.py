"""Causal importance: trained functions that say how much each component matters at each position."""
