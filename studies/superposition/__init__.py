"""Toy models of superposition, whose features can be read off the weights, tracked and scored.

``cases`` says what is trained, ``training`` trains and records it, ``truth`` reads the events off W, ``runs`` analyses
and scores, ``table`` prints, ``picture`` draws. ``python -m studies.superposition --help``.
"""
