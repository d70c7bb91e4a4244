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
THERE = 0.5
"""Presence before from which a feature was there already."""
SEEN = 2
"""Checkpoints after the first sight whose latents tell too, and by which it may be whole."""
GROWN = 4
"""Checkpoints after the first sight over which it is seen how large it gets."""


@dataclass(frozen=True)
class Beginnings:
    """For every live latent of one checkpoint: how sharply its feature begins near it, and where."""

    score: Float[np.ndarray, " live"]
    """Presence from the step on less presence before it, in units of what the estimate can tell; 0 where half of the
    feature was there before."""
    date: Int[np.ndarray, " live"]
    """Place of the first checkpoint that carries the feature: half of it and more, where it grows, which may be after
    its first sight."""
    before: Float[np.ndarray, " live"]
    after: Float[np.ndarray, " live"]


def beginnings(timeline: Timeline, index: int) -> Beginnings:
    """Presence up to ``index``, and its largest step up: the least presence from a date on, less the most just before.

    Each feature is looked at through its latents here and at the next two checkpoints, as far as its track goes on: an
    SAE's first sight is its poorest, and of a feature that grows there is little to see at first.
    """
    places = list(window(index, BEFORE, SEEN, len(timeline)))
    first = places.index(index)
    curve, blur = _presence_curve(timeline, index, places)
    found = Beginnings(*(np.full(curve.shape[0], value) for value in (-1.0, 0, 0.0, 0.0)))
    for at in range(1, len(places)):
        after = np.minimum(curve[:, at:].min(axis=1), 1)
        for last in (place for place in _last_without(at) if place < first):
            before = curve[:, max(0, last - 1) : last + 1].max(axis=1)
            half = curve[:, last + 1 :] >= (before + 1)[:, None] / 2
            date = np.where(half.any(axis=1), places[last + 1] + half.argmax(axis=1), index)
            found = _better(found, Beginnings(after - before, date, before, after))
    return replace(found, score=np.where(found.before < THERE, np.maximum(found.score, 0) / blur, 0))


def _last_without(at: int) -> list[int]:
    """Places that may be the last before a feature begins which is whole at ``at``, the nearest first.

    Growth is only told from noise where two checkpoints go before it.
    """
    return [at - 1, *range(at - 2, max(0, at - 2 - GROWING), -1)]


def _better(one: Beginnings, other: Beginnings) -> Beginnings:
    """Of each latent the sharper of two."""
    sharper = other.score > one.score
    return Beginnings(*(np.where(sharper, getattr(other, f.name), getattr(one, f.name)) for f in fields(one)))


def _presence_curve(
    timeline: Timeline, index: int, places: list[int]
) -> tuple[Float[np.ndarray, "live places"], Float[np.ndarray, " live"]]:
    """Presence at each place as the latents of each track tell it, the surer with more weight; and their blur.

    A latent that fits noise is wholly present where it was fitted and nowhere else: none tells of its own place.
    """
    seen = list(window(index, 0, SEEN, len(timeline)))
    position = np.stack([timeline.position_at(index, s) for s in seen])
    curves = np.stack([_at(p, _grown_to_one(timeline, s, places, index)) for s, p in zip(seen, position, strict=True)])
    blurs = np.stack([_at(p, timeline.blur(s)) for s, p in zip(seen, position, strict=True)])
    weight = np.where(position >= 0, blurs**-2, 0)
    told = weight[:, :, None] * (np.array(seen)[:, None] != np.array(places))[:, None, :]
    total = told.sum(axis=0)
    curve = np.where(total > 0, (told * curves).sum(axis=0) / np.where(total > 0, total, 1), 1)
    return curve, (weight * blurs).sum(axis=0) / weight.sum(axis=0)


def _at(position: Int[np.ndarray, " live"], values: Float[np.ndarray, "other ..."]) -> Float[np.ndarray, "live ..."]:
    """The values at these positions; 1 where the position is -1."""
    return np.asarray(np.concatenate([values, np.ones((1, *values.shape[1:]))])[position])


def _grown_to_one(timeline: Timeline, seen: int, places: list[int], index: int) -> Float[np.ndarray, "live places"]:
    """Presence at each place through the latents of a checkpoint, 1 being what their features grow to."""
    curve = np.stack([timeline.presence(seen, s) for s in places], axis=1)
    others = [timeline.presence(seen, s) for s in window(index, 0, GROWN, len(timeline)) if s != seen]
    grown = np.median(others, axis=0) if others else np.ones(len(curve))
    return np.asarray(curve / np.maximum(grown, 1)[:, None])
