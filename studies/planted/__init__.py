"""Histories whose truth is known, and scores of what a tracker says about them.

``worlds`` generates (``config``: what kind; ``plan``: what happens; ``supports``: on which rows; ``dictionary`` and
``oracle``: the perfect dictionaries; ``clothes``: the same in other units and orders), ``truth`` records, ``matching``
tells which latent is which feature, ``report`` is what a tracker said, ``scoring`` scores it, ``baselines`` are the
rules in use elsewhere, ``runs`` takes a world through the public commands, ``table`` prints. ``python -m
studies.planted --help``.
"""
