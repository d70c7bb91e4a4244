"""The tracking stage: from a series of checkpoints and its null series to links, events, tracks and transitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from dynamics.tracking import tables
from dynamics.tracking.carrying import Carrying
from dynamics.tracking.checkpoint import Series
from dynamics.tracking.claims import KINDS, Claims, Units, claims
from dynamics.tracking.events import (
    Calibration,
    Event,
    Place,
    beginning_events,
    cut,
    division_events,
    dormancy_events,
    drift_events,
    rotation_events,
)
from dynamics.tracking.following import Followed, decoy_scores, follow, mutual_scores
from dynamics.tracking.onset import onsets
from dynamics.tracking.transitions import transitions

HALFWAY = 0.5
"""And at least this part of what latents that are each other's best candidate score in the median."""
DECOY_QUANTILE = 0.99
"""A link must score above this share of the best scores that unrelated latents reach."""


@dataclass(frozen=True)
class Tracking:
    """What the stage found: tables named and laid out as the database's, and what it cannot tell, in words."""

    tables: dict[str, pa.Table]
    notes: list[str]


@dataclass(frozen=True)
class History:
    """One site's series and what is known of it beside the codes."""

    name: str
    """Goes before the names of its events."""
    chain: Series
    nulls: dict[int, Series]
    """Null series by their seed."""
    sequence: Int[np.ndarray, " rows"]
    """Which sequence each probe row belongs to."""
    n_latents: int
    """Of every SAE, live or dead."""
    losses: Sequence[float | None] = ()
    """Loss at each checkpoint, where known."""


def track(history: History) -> Tracking:
    """Everything there is to say about one site.

    With a single checkpoint there is nothing to compare; with too few, or no null series, the notes say what cannot
    be told, and nothing is published that has no null to be held against.
    """
    carrying = Carrying(history.chain, history.sequence)
    threshold = link_threshold(carrying)
    followed = follow(carrying, threshold)
    nulls = {seed: follow(Carrying(series, history.sequence), threshold) for seed, series in history.nulls.items()}
    null_claims = {seed: claims(null) for seed, null in nulls.items()}
    followed, found, calibration, events = _events(followed, list(null_claims.values()))
    found_transitions = transitions(followed, events, history.losses)
    made = {
        "pairs": tables.pairs(followed, nulls),
        "links": tables.links(followed),
        "event_candidates": tables.event_candidates(history.name, followed, events, null_claims, calibration),
        "feature_history": tables.feature_history(followed, found, events),
        "tracks": tables.tracks(followed, events),
        "onsets": onsets(followed),
        "transitions": found_transitions.table,
        "change": found_transitions.change,
        "population": tables.population(followed, found, null_claims, history.n_latents),
        "resolution": tables.resolution(calibration),
    }
    return Tracking(made, [*_notes(history, calibration), *found_transitions.notes])


def link_threshold(carrying: Carrying) -> float:
    """The smallest score of a link; 1 without a pair of checkpoints.

    What one in a hundred unrelated latents reaches with its best candidate, and no less than half of what mutual best
    candidates do in the median: a feature that goes on is nearer to those than to nothing.
    """
    pairs = range(len(carrying.series) - 1)
    decoys = np.concatenate([np.zeros(0), *(decoy_scores(carrying, t, t + 1) for t in pairs)])
    mutual = np.concatenate([np.zeros(0), *(mutual_scores(carrying, t, t + 1) for t in pairs)])
    if len(decoys) == 0 or len(mutual) == 0:
        return 1.0
    return float(max(np.quantile(decoys, DECOY_QUANTILE), HALFWAY * np.median(mutual)))


def _events(followed: Followed, nulls: list[Claims]) -> tuple[Followed, Claims, Calibration, list[Event]]:
    """Splits and merges first: they cut tracks, and what they explain is neither birth nor death."""
    first = claims(followed)
    calibration = Calibration.of(first, nulls)
    splits = calibration.judged(division_events("split", first.forward, first.splits))
    merges = calibration.judged(division_events("merge", first.backward, first.merges))
    accepted = [e for e in (*splits, *merges) if e.accepted]
    if accepted:
        followed = cut(followed, accepted)
    found = claims(followed) if accepted else first
    calibration = Calibration.of(found, nulls)
    births = calibration.judged(beginning_events("birth", found, _explained(followed, accepted, births=True)))
    deaths = calibration.judged(beginning_events("death", found, _explained(followed, accepted, births=False)))

    def tested(kind: str, units: Units) -> np.ndarray:
        return calibration.p_values(kind, units.score)

    rotations = calibration.judged(rotation_events(found, lambda units: tested("rotation", units)))
    drifts = calibration.judged(drift_events(found, rotations, lambda units: tested("drift", units)))
    events = [*births, *deaths, *splits, *merges, *rotations, *drifts, *dormancy_events(followed)]
    return followed, found, calibration, sorted(events, key=lambda e: (e.date, e.kind, e.parents, e.children))


def _explained(followed: Followed, accepted: list[Event], *, births: bool) -> dict[Place, str]:
    """Ends of tracks that an accepted split or merge accounts for."""
    of, positions = followed.tracks.of, followed.tracks.positions
    explained: dict[Place, str] = {}
    for event in accepted:
        for place, position in event.children if births else event.parents:
            track = positions[int(of[place][position])]
            explained[track[0] if births else track[-1]] = f"part of a {event.kind}"
    return explained


def _notes(history: History, calibration: Calibration) -> list[str]:
    steps = len(history.chain)
    if steps == 1:
        return ["one checkpoint only: there is nothing to compare it with"]
    notes = []
    if not history.nulls:
        notes.append(
            "no null series yet, so no event can be told from retraining noise and none is published; "
            "they need 4 checkpoints or more"
        )
    untold = [kind for kind in KINDS if calibration.tests[kind] == 0]
    if untold:
        notes.append(f"{', '.join(untold)}: cannot be told from {steps} checkpoints with what lives in them")
    return notes
