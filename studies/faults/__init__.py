"""Faults on purpose: what is done to a run at every point where something can go wrong, and what is left of it."""
