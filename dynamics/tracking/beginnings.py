"""Births: latents whose inputs the model writes nothing for before a step. Read backwards: deaths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.timeline import Timeline, window

BEFORE = 4
"""Checkpoints before a latent's first sight in which its feature may have begun: SAEs see late."""


@dataclass(frozen=True)
class Beginnings:
    """For every live latent of one checkpoint: how sharply its feature begins near it, and where."""

    score: Float[np.ndarray, " live"]
    """Presence from the step on less presence before it, in units of what the estimate can tell."""
    date: Int[np.ndarray, " live"]
    """Place of the first checkpoint that carries the feature."""
    before: Float[np.ndarray, " live"]
    after: Float[np.ndarray, " live"]


def beginnings(timeline: Timeline, index: int) -> Beginnings:
    """Presence up to ``index``, and its largest step up: the least presence from a date on, less the most just before.

    Each feature is looked at through its latent here and, where its track goes on, through the next one too: an SAE's
    first sight is its poorest.
    """
    places = list(window(index, BEFORE, 0, len(timeline)))
    curve = _presence_curve(timeline, index, places)
    step_up = np.full((len(places), curve.shape[0]), -1.0)
    before, after = np.zeros_like(step_up), np.zeros_like(step_up)
    for at in range(1, len(places)):
        before[at] = curve[:, max(0, at - 2) : at].max(axis=1)
        after[at] = np.minimum(curve[:, at:].min(axis=1), 1)
        step_up[at] = after[at] - before[at]
    best = step_up.argmax(axis=0)
    each = np.arange(curve.shape[0])
    score = np.maximum(step_up[best, each], 0) / timeline.blur(index)
    return Beginnings(score, np.asarray(places)[best], before[best, each], after[best, each])


def _presence_curve(timeline: Timeline, index: int, places: list[int]) -> Float[np.ndarray, "live places"]:
    own = np.stack([timeline.presence(index, s) for s in places], axis=1)
    following = timeline.following(index)
    goes_on = np.flatnonzero(following >= 0)
    if len(goes_on):
        later = np.stack([timeline.presence(index + 1, s) for s in places], axis=1)
        own[goes_on] = (own[goes_on] + later[following[goes_on]]) / 2
    return own
