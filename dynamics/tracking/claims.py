"""Everything an event could be claimed about in one series, scored alike whether or not it is claimed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dynamics.tracking.beginnings import Beginnings, beginnings
from dynamics.tracking.divisions import Division, divisions
from dynamics.tracking.drifting import Drifts, drifts
from dynamics.tracking.following import Followed
from dynamics.tracking.timeline import Timeline
from dynamics.tracking.turning import Turns, sudden, turns

CORE = ("birth", "death", "split", "merge")
KINDS = (*CORE, "rotation", "drift")
LOOK_BACK = 3
"""Checkpoints before a latent's first sight at which its parent is looked for."""


@dataclass(frozen=True)
class Family:
    """A division and the places between which it was seen, in reading order."""

    former: int
    latter: int
    division: Division


@dataclass(frozen=True)
class Units:
    """What is tested for one kind of event: live latents (births … rotations) or tracks (drift)."""

    checkpoint: Int[np.ndarray, " units"]
    """Position in the series."""
    position: Int[np.ndarray, " units"]
    """Among the live latents there."""
    score: Float[np.ndarray, " units"]


@dataclass(frozen=True)
class Claims:
    """The scores of one series; births and splits are read forwards, deaths and merges backwards."""

    forward: Timeline
    backward: Timeline
    births: dict[int, Beginnings]
    deaths: dict[int, Beginnings]
    splits: list[Family]
    merges: list[Family]
    turns: dict[int, Turns]
    drifts: Drifts

    def units(self, kind: str) -> Units:
        """All that could be called an event of a kind; the score is 0 where the detector would not, whatever it saw."""
        if kind in ("birth", "death"):
            timeline, found = (self.forward, self.births) if kind == "birth" else (self.backward, self.deaths)
            scores = {k: np.where(timeline.lasting_starts(k), b.score, 0.0) for k, b in found.items()}
            return _of_latents(timeline, scores)
        if kind in ("split", "merge"):
            timeline, families = (self.forward, self.splits) if kind == "split" else (self.backward, self.merges)
            return _of_latents(timeline, _child_scores(timeline, families))
        if kind == "rotation":
            return _units((k, t.j, np.where(t.as_before, t.score, 0.0)) for k, t in self.turns.items())
        starts = [self.forward.tracks.first(int(t)) for t in self.drifts.track]
        places = np.array(starts, dtype=np.int64).reshape(-1, 2)
        return Units(places[:, 0], places[:, 1], self.drifts.score)


def claims(followed: Followed) -> Claims:
    """Scores every candidate of a series."""
    forward = Timeline(followed.carrying, followed.tracks)
    backward = forward.flipped()
    births, deaths = ({k: beginnings(read, k) for k in range(1, len(read))} for read in (forward, backward))
    return Claims(
        forward=forward,
        backward=backward,
        births=births,
        deaths=deaths,
        splits=families(forward, births),
        merges=families(backward, deaths),
        turns=sudden({s.later: turns(forward, s.earlier, s.later) for s in followed.steps}),
        drifts=drifts(forward),
    )


def families(timeline: Timeline, found: dict[int, Beginnings]) -> list[Family]:
    """Every division between checkpoints at most ``LOOK_BACK`` apart.

    But those that a birth tells better: a child that begins more sharply than it parts was nobody's part.
    """
    all_ = [
        Family(former, latter, division)
        for latter in range(1, len(timeline))
        for former in range(max(0, latter - LOOK_BACK), latter)
        for division in divisions(timeline, former, latter)
    ]
    return [family for family in all_ if family.division.score >= _born(timeline, family, found)]


def _born(timeline: Timeline, family: Family, found: dict[int, Beginnings]) -> float:
    """The best birth score of a family's children, where it is seen and where its newest child begins."""
    seen = [(family.latter, child) for child in family.division.children]
    new = newcomer(timeline, family)
    return max(float(found[place].score[position]) for place, position in ([*seen, new] if new else seen))


def newcomer(timeline: Timeline, family: Family) -> tuple[int, int] | None:
    """Place and position at which the first child begins that was not there before; None where all were.

    An SAE's first sight of a part is its poorest, so that the family may be told by a later one.
    """
    for child in family.division.children:
        track = int(timeline.track_of(family.latter)[child])
        place, position = timeline.beginning(track)
        if place > family.former and len(timeline.tracks.positions[track]) > 1:
            return place, position
    return None


def _child_scores(timeline: Timeline, found: list[Family]) -> dict[int, Float[np.ndarray, " _"]]:
    """The best division score of every live latent as the child that is new; 0 for all others."""
    best = {k: np.zeros(len(timeline.track_of(k))) for k in range(1, len(timeline))}
    for family in found:
        if new := newcomer(timeline, family):
            place, position = new
            best[place][position] = max(best[place][position], family.division.score)
    return best


def _of_latents(timeline: Timeline, scores: dict[int, Float[np.ndarray, " _"]]) -> Units:
    """Those at the last checkpoint in reading order cannot last, so they are no candidates."""
    last = len(timeline) - 1
    return _units((timeline.place(k), np.arange(len(s)), s) for k, s in scores.items() if k < last)


def _units(parts: Iterable[tuple[int, Int[np.ndarray, " _"], Float[np.ndarray, " _"]]]) -> Units:
    listed = list(parts)
    none = np.zeros(0, np.int64)
    return Units(
        np.concatenate([none, *(np.full(len(score), place) for place, _, score in listed)]).astype(np.int64),
        np.concatenate([none, *(position for _, position, _ in listed)]).astype(np.int64),
        np.concatenate([np.zeros(0), *(score for *_, score in listed)]),
    )
