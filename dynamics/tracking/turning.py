"""Rotation and drift: a feature fires as before while the direction its inputs point to turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.carried import Carried
from dynamics.tracking.timeline import Timeline

STEADY = 5.0
"""Degrees that a feature of perfect signal may seem to turn for reasons of its own."""
MATERIAL = 10.0
"""Smallest angle above the usual that is called a turn, however sure it is."""
PER_UNCERTAINTY = 40.0
"""Degrees more per unit of relative noise of its carried direction."""


@dataclass(frozen=True)
class Turns:
    """How far the features seen at two checkpoints turned in the model between them."""

    i: Int[np.ndarray, " tracks"]
    """Positions at the former checkpoint."""
    j: Int[np.ndarray, " tracks"]
    angle: Float[np.ndarray, " tracks"]
    """Degrees, the turn of the whole space taken out."""
    usual: float
    """Median angle of these features: noise, wander, retraining."""
    score: Float[np.ndarray, " tracks"]
    """Degrees above the usual, in units of what the estimate can tell."""


def turns(timeline: Timeline, former: int, latter: int) -> Turns:
    """The turns of all tracks that are live at both places."""
    position = timeline.position_at(former, latter)
    i = np.flatnonzero(position >= 0)
    j = position[i]
    rotation = timeline.carrying.rotation(timeline.place(former), timeline.place(latter))
    ahead = _angles(timeline.carried(former, former), timeline.carried(former, latter), rotation)[i]
    back = _angles(timeline.carried(latter, former), timeline.carried(latter, latter), rotation)[j]
    angle = (ahead + back) / 2
    usual = float(np.median(angle)) if len(angle) else 0.0
    noise = np.maximum(timeline.carried(former, former).uncertainty[i], timeline.carried(latter, latter).uncertainty[j])
    score = np.where(angle - usual >= MATERIAL, (angle - usual) / (STEADY + PER_UNCERTAINTY * noise), 0.0)
    return Turns(i, j, angle, usual, score)


def _angles(here: Carried, there: Carried, rotation: Float[np.ndarray, "d_in d_in"]) -> Float[np.ndarray, " live"]:
    """Degrees between two carried directions of the same latents; halves are crossed against shared noise."""
    product = np.einsum("id,id->i", here.first @ rotation, there.second) + np.einsum(
        "id,id->i", here.second @ rotation, there.first
    )
    return np.asarray(np.degrees(np.arccos(np.clip(product / (2 * here.norm * there.norm), -1, 1))))
