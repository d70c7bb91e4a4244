"""Births: latents whose inputs the model writes nothing for before a step. Read backwards: deaths."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.timeline import Timeline, window

BEFORE = 4
"""Checkpoints before a latent's first sight in which its feature may have begun: SAEs see late."""
GROWING = 2
"""Checkpoints over which a feature may grow from nothing to what it is; they count neither as before nor as after."""
GROWN = 4
"""Checkpoints after the first sight in which it may grow on; it is dated by half of that size."""


@dataclass(frozen=True)
class Beginnings:
    """For every live latent of one checkpoint: how sharply its feature begins near it, and where."""

    score: Float[np.ndarray, " live"]
    """Presence from the step on less presence before it, in units of what the estimate can tell."""
    date: Int[np.ndarray, " live"]
    """Place of the first checkpoint that carries the feature: half of it and more, where it grows."""
    before: Float[np.ndarray, " live"]
    after: Float[np.ndarray, " live"]


def beginnings(timeline: Timeline, index: int) -> Beginnings:
    """Presence up to ``index``, and its largest step up: the least presence from a date on, less the most just before.

    Each feature is looked at through its latent here and, where its track goes on, through the next one too: an SAE's
    first sight is its poorest.
    """
    places = list(window(index, BEFORE, 0, len(timeline)))
    curve = _presence_curve(timeline, index, places)
    grown = np.median([timeline.presence(index, s) for s in window(index, 0, GROWN, len(timeline))], axis=0)
    found = Beginnings(*(np.full(curve.shape[0], value) for value in (-1.0, 0, 0.0, 0.0)))
    for at in range(1, len(places)):
        after = np.minimum(curve[:, at:].min(axis=1), 1)
        for last in _last_without(at):
            before = curve[:, max(0, last - 1) : last + 1].max(axis=1)
            half = curve[:, last + 1 :] >= (before + np.maximum(after, grown))[:, None] / 2
            date = np.where(half.any(axis=1), places[last + 1] + half.argmax(axis=1), index)
            found = _better(found, Beginnings(after - before, date, before, after))
    return replace(found, score=np.maximum(found.score, 0) / timeline.blur(index))


def _last_without(at: int) -> list[int]:
    """Places that may be the last before a feature begins which is whole at ``at``, the nearest first.

    Growth is only told from noise where two checkpoints go before it.
    """
    return [at - 1, *range(at - 2, max(0, at - 2 - GROWING), -1)]


def _better(one: Beginnings, other: Beginnings) -> Beginnings:
    """Of each latent the sharper of two."""
    sharper = other.score > one.score
    return Beginnings(*(np.where(sharper, getattr(other, f.name), getattr(one, f.name)) for f in fields(one)))


def _presence_curve(timeline: Timeline, index: int, places: list[int]) -> Float[np.ndarray, "live places"]:
    own = np.stack([timeline.presence(index, s) for s in places], axis=1)
    following = timeline.following(index)
    goes_on = np.flatnonzero(following >= 0)
    if len(goes_on):
        # A latent that fits noise is wholly present where it was fitted, and nowhere else: its own place says nothing.
        own[:, -1] = timeline.presence(index, index + 1)
        later = np.stack([timeline.presence(index + 1, s) for s in places], axis=1)
        own[goes_on] = (own[goes_on] + later[following[goes_on]]) / 2
    return own
