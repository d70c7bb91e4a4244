"""Rotation and drift: a feature fires as before while the direction its inputs point to turns."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from dynamics.tracking.timeline import Timeline


def turned(timeline: Timeline, source: int, target: int) -> Float[np.ndarray, " live"]:
    """Degrees by which each latent of ``source`` points elsewhere at ``target``, the whole space's turn taken out."""
    own, there = timeline.carried(source, source), timeline.carried(source, target)
    rotation = timeline.carrying.rotation(timeline.place(source), timeline.place(target))
    product = (
        np.einsum("id,id->i", own.first @ rotation, there.second) + np.einsum("id,id->i", own.second @ rotation, there.first)
    ) / 2
    return np.degrees(np.arccos(np.clip(product / (own.norm * there.norm), -1, 1)))
