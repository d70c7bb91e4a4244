"""A small language model on real text, watched while it trains."""
