"""Rotation and drift: a feature fires as before while the direction its inputs point to turns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from dynamics.tracking.carried import Carried
from dynamics.tracking.procrustes import nearest_orthogonal
from dynamics.tracking.timeline import Timeline

STEADY = 5.0
"""Degrees that a feature of perfect signal may seem to turn for reasons of its own."""
AS_BEFORE = 0.65
"""Correlation of a turning feature's codes before and after, against the usual link's, to have fired as before."""
UNTOLD = 0.03
"""Weight of all activations' turn for each feature whose direction is as much noise as signal."""
NOTHING_TOLD = 1e-3
"""Its least weight: it speaks where no feature reaches."""
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
    """Of a sudden turn: degrees above the usual and above the feature's own turns just before and after, in units of
    the usual and of what the estimate can tell."""
    blur: Float[np.ndarray, " tracks"]
    """Degrees that the estimate of each cannot tell."""
    kept: Float[np.ndarray, " tracks"]
    """Presence of each at the other place, the lesser of both readings, 1 at most: 0 where the track is by then another
    feature's, or was noise, and there is nothing that could have turned."""
    correlation: Float[np.ndarray, " tracks"]
    """Of the codes at both checkpoints or at the former and the one after the latter, where an SAE has come to terms
    with the turn; 0 where the two are not neighbours."""
    as_before: Bool[np.ndarray, " tracks"]
    """Whether it fires as before: the correlation is not far below the usual."""


def turns(timeline: Timeline, former: int, latter: int, *, apart: int = 0) -> Turns:
    """The turns of all tracks that are live at both places, read forwards.

    Args:
        timeline: the series, read forwards.
        former: the place to turn from.
        latter: the place to turn to.
        apart: how many checkpoints nearer to each other those are whose latents' inputs are looked at. An SAE fits
            noise where it is trained, so a latent's own checkpoint shows it turned; over a longer way others tell.
    """
    position = timeline.position_at(former, latter)
    near, far = (timeline.position_at(former, place) for place in (former + apart, latter - apart))
    i = np.flatnonzero((position >= 0) & (near >= 0) & (far >= 0))
    j = position[i]
    whole = timeline.carrying.rotation(timeline.place(former), timeline.place(latter))
    here, there = (timeline.carried(former + apart, place).at(near[i]) for place in (former, latter))
    early, late = (timeline.carried(latter - apart, place).at(far[i]) for place in (former, latter))
    rotation = _turn_of_the_rest(here, there, whole)
    angle = np.minimum(_angles(here, there, rotation), _angles(early, late, rotation))
    usual = _median(angle)
    noise = np.maximum(here.uncertainty, late.uncertainty)
    blur = STEADY + PER_UNCERTAINTY * noise
    score = np.maximum(angle - usual, 0) / (usual + blur)
    correlation = _correlation(timeline, former, latter, i) if latter == former + 1 else np.zeros(len(i))
    as_before = correlation >= AS_BEFORE * _median(correlation)
    kept = np.minimum(timeline.mutual_presence(former, latter, i, j), 1)
    return Turns(i, j, angle, usual, score, blur, kept, correlation, as_before)


def sudden(found: dict[int, Turns]) -> dict[int, Turns]:
    """The turns between neighbours, by the place of the latter, scored against each feature's own turns beside them.

    A feature that turns at every checkpoint is drifting, or its direction is not well told; neither is a rotation.
    """
    return {k: _against_neighbours(turn, found.get(k - 1), found.get(k + 1)) for k, turn in found.items()}


def _against_neighbours(turn: Turns, before: Turns | None, after: Turns | None) -> Turns:
    own = np.full(len(turn.angle), turn.usual)
    if before is not None:
        own = np.maximum(own, _looked_up(turn.i, before.j, before.angle))
    if after is not None:
        own = np.maximum(own, _looked_up(turn.j, after.i, after.angle))
    return replace(turn, score=turn.kept * np.maximum(turn.angle - own, 0) / (turn.usual + turn.blur))


def _looked_up(
    wanted: Int[np.ndarray, " wanted"], known: Int[np.ndarray, " known"], angle: Float[np.ndarray, " known"]
) -> Float[np.ndarray, " wanted"]:
    """The angle of each wanted position; 0 where it is not known."""
    angles = dict(zip(known.tolist(), angle.tolist(), strict=True))
    return np.array([angles.get(n, 0.0) for n in wanted.tolist()], dtype=float)


def _correlation(
    timeline: Timeline, former: int, latter: int, i: Int[np.ndarray, " tracks"]
) -> Float[np.ndarray, " tracks"]:
    def at(place: int) -> Float[np.ndarray, " tracks"]:
        return timeline.carrying.pairs(former, place).correlation_of(i, timeline.position_at(former, place)[i])

    return np.asarray(np.max([at(place) for place in range(latter, min(latter + 2, len(timeline)))], axis=0))


def _median(values: Float[np.ndarray, " n"]) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _turn_of_the_rest(
    here: Carried, there: Carried, whole: Float[np.ndarray, "d_in d_in"]
) -> Float[np.ndarray, "d_in d_in"]:
    """The turn of the space, as those features show it that turn least against it.

    ``whole``, fitted to all activations, follows a feature that turns and is a large part of a small space, and what
    does not turn with the features. Here every feature weighs less the further it turns (Geman and McClure 1987), and
    ``whole`` speaks for what their directions cannot tell.
    """
    noise, size = np.maximum(here.uncertainty, there.uncertainty), _size(here) * _size(there)
    angle = _angles(here, there, whole)
    weight = (1 + (angle / (_median(angle) + STEADY + PER_UNCERTAINTY * noise)) ** 2) ** -2
    each = (weight / (2 * size))[:, None]
    shown = (here.first * each).T @ there.second + (here.second * each).T @ there.first
    untold = max(NOTHING_TOLD, UNTOLD * float(weight @ noise**2))
    return nearest_orthogonal(shown + untold * whole)


def _size(carried: Carried) -> Float[np.ndarray, " live"]:
    """Root mean square norm of the two halves, their noise included: a direction that is mostly noise says little."""
    return np.asarray(np.sqrt((np.square(carried.first) + np.square(carried.second)).sum(axis=1) / 2) + 1e-12)


def _angles(here: Carried, there: Carried, rotation: Float[np.ndarray, "d_in d_in"]) -> Float[np.ndarray, " live"]:
    """Degrees between two carried directions of the same latents; halves are crossed against shared noise."""
    product = np.einsum("id,id->i", here.first @ rotation, there.second) + np.einsum(
        "id,id->i", here.second @ rotation, there.first
    )
    return np.asarray(np.degrees(np.arccos(np.clip(product / (2 * here.norm * there.norm), -1, 1))))
