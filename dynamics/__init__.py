"""Tracks what a network's features do while it trains."""
