"""Grokking on modular addition: a network that memorises, and long after that understands; and one that never does.

``training`` trains and records it, ``truth`` measures the phases without any autoencoder, ``births`` counts what the
tracker published in each, ``picture`` draws. ``python -m studies.grokking --help``.
"""
