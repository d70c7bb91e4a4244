"""Slow drift: the angle a feature has turned by over its whole track, beyond what unchanged features show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.timeline import Timeline
from dynamics.tracking.turning import turns

FURTHER = 2.0
"""Times the usual angle and what its estimate cannot tell that a feature must have turned by: over a long track all
wander, some further than others."""
APART = 1
"""Checkpoints from a track's ends to those whose latents' inputs show how far it turned."""
SHORTEST = 3
"""Fewest checkpoints from a track's first to its last over which drift is judged."""


@dataclass(frozen=True)
class Drifts:
    """Of every track that lasts: how far it turned from its first to its last checkpoint."""

    track: Int[np.ndarray, " tracks"]
    first: Int[np.ndarray, " tracks"]
    last: Int[np.ndarray, " tracks"]
    angle: Float[np.ndarray, " tracks"]
    """Degrees in the model, the turn of the whole space taken out."""
    usual: Float[np.ndarray, " tracks"]
    """Median over the tracks with the same first and last checkpoint."""
    score: Float[np.ndarray, " tracks"]
    """Degrees above the usual in units of what the estimate can tell, less where less of the feature is kept: noise is
    linked to other noise. 0 where it is no further than all wander."""


def drifts(timeline: Timeline) -> Drifts:
    """Drift of all tracks of a series, read forwards."""
    columns: list[list[float]] = [[], [], [], [], [], []]
    ends = {t: (timeline.tracks.first(t), timeline.tracks.last(t)) for t in range(len(timeline.tracks))}
    spans = sorted({(a[0], b[0]) for a, b in ends.values() if b[0] - a[0] >= SHORTEST})
    for first, last in spans:
        found = turns(timeline, first, last, apart=APART)
        tracks = timeline.track_of(first)[found.i]
        spanning = np.array([ends[t][0][0] == first and ends[t][1][0] == last for t in tracks], dtype=bool)
        for column, values in zip(
            columns,
            (
                tracks,
                np.full(len(tracks), first),
                np.full(len(tracks), last),
                found.angle,
                np.full(len(tracks), found.usual),
                np.where(
                    found.angle >= FURTHER * (found.usual + found.blur),
                    found.kept * (found.angle - found.usual) / found.blur,
                    0.0,
                ),
            ),
            strict=True,
        ):
            column.extend(values[spanning])
    track, first_, last_, angle, usual, score = (np.array(c) for c in columns)
    return Drifts(track.astype(np.int64), first_.astype(np.int64), last_.astype(np.int64), angle, usual, score)
