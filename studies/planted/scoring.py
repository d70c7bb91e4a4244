"""Scores what a tracker said about a planted world against its truth.

Rules
- Latents become true features by :mod:`studies.planted.matching`. A latent of an event that is no feature at its own
  step stands for what its track is at the nearest checkpoint on the same side (before for parents, after for children).
- An event is right if its kind is, if it is dated within one checkpoint (``within``), and if it names the features:
  birth: the child; death: the parent; split: the parent and at least two of the children; merge: at least two of the
  parents and the child; rotation, drift, dormancy: the feature, on either side. Drift is not dated.
  Dormancy may be dated at its start or at its end. Each true event is found once: a second report of it is false.
- Every other reported event is false, also one about latents that are no feature at all. Transients, subsets,
  absorption, duplicates, antipodes and correlated features have no true event, so what is reported of them is false.
  A replaced feature is a death and a birth. A bud is a birth; whether its parent was named is scored apart.
- A link is right if both ends are the same feature, wrong if they are two features, and not judged if an end is no
  feature. It is missing if a feature shown at two consecutive checkpoints has no right link between them.
- IDF1 (Ristani et al. 1609.01775): tracks and features are paired one-to-one so that most detections agree; a detection
  is the principal latent of a feature at a checkpoint. A gap does not end a feature, a split or merge does.
- Dormancy kept: share of the gaps, shown on both sides, before and after which the principal latents are one track.
- A transition is found if a reported window overlaps its window; a reported window that overlaps none is false.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from studies.planted.matching import Assignment, Assignments
from studies.planted.report import Report, Row
from studies.planted.truth import CORE_KINDS, KINDS, Event, Truth


@dataclass(frozen=True)
class Counts:
    """Right, false and missing, with the ratios made of them."""

    right: int = 0
    false: int = 0
    missing: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.right + other.right, self.false + other.false, self.missing + other.missing)

    @property
    def precision(self) -> float:
        """Right over reported; nan where nothing was reported."""
        return _ratio(self.right, self.right + self.false)

    @property
    def recall(self) -> float:
        """Right over true; nan where there was nothing to find."""
        return _ratio(self.right, self.right + self.missing)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; nan where nothing was reported and nothing was there."""
        return _ratio(2 * self.right, 2 * self.right + self.false + self.missing)

    @property
    def false_share(self) -> float:
        """False-discovery proportion: false over reported, 0 where nothing was reported."""
        return self.false / max(1, self.right + self.false)


@dataclass(frozen=True)
class Scores:
    """How well a report tells the truth."""

    kinds: dict[str, Counts]
    """Counts of each kind of event."""
    core: Counts
    """Births, deaths, splits and merges pooled."""
    events: Counts
    """All kinds that carry a q-value (all but dormancy) pooled."""
    links: Counts
    idf1: float
    """Identity F1 of the tracks, in [0, 1]."""
    dormancy_kept: float
    """Share of the gaps that did not break their track; nan where no gap was shown on both sides."""
    bud_parents: Counts
    """Found buds whose parent was named (right), was another (false) or was not named (missing)."""
    transitions: Counts
    wrong: list[Row] = field(default_factory=list, repr=False)
    """The false events as reported, with ``features``: what they are about. To look at."""
    missed: list[Event] = field(default_factory=list, repr=False)
    """The true events that were not reported."""


def score(truth: Truth, assignments: Assignments, report: Report, within: int = 1) -> Scores:
    """Scores a report; the rules are at the top of this file.

    Args:
        truth: what happened.
        assignments: for each step that has a dictionary, the true feature of its latents.
        report: what the tracker said; its steps are steps of the world.
        within: tolerance of dates in checkpoints.
    """
    index = {step: i for i, step in enumerate(truth.steps)}
    kinds, found, wrong = {}, [], []
    for kind in KINDS:
        claims = [_Claim(row, index, assignments, report) for row in report.events if row["kind"] == kind]
        pairs = _pairs(truth.of_kind(kind), claims, within)
        kinds[kind] = Counts(len(pairs), len(claims) - len(pairs), len(truth.of_kind(kind)) - len(pairs))
        found += [(event, claims[c]) for event, c in pairs]
        taken = {c for _, c in pairs}
        wrong += [claim.described() for c, claim in enumerate(claims) if c not in taken]
    known = {id(event) for event, _ in found}
    return Scores(
        kinds=kinds,
        core=_pooled(kinds, CORE_KINDS),
        events=_pooled(kinds, [kind for kind in KINDS if kind != "dormancy"]),
        links=link_counts(truth, assignments, report),
        idf1=identity_f1(assignments, report),
        dormancy_kept=dormancy_kept(truth, assignments, report),
        bud_parents=_bud_parents(found),
        transitions=transition_counts(truth, report),
        wrong=wrong,
        missed=[event for event in truth.events if id(event) not in known],
    )


# --- events ---------------------------------------------------------------------------------------------------


class _Claim:
    """A reported event in terms of true features."""

    def __init__(self, row: Row, index: dict[int, int], assignments: Assignments, report: Report) -> None:
        self.row, self.steps = row, list(index)
        self.dates = [_nearest(row["step"], index)]
        if row["kind"] == "dormancy" and row.get("to_step") is not None:
            self.dates.append(_nearest(row["to_step"], index))
        self.parents = self._features("parents", row.get("from_step"), row.get("parent_tracks"), assignments, report)
        self.children = self._features("children", row.get("to_step"), row.get("child_tracks"), assignments, report)

    def _features(
        self, side: str, step: int | None, tracks: list[int] | None, assignments: Assignments, report: Report
    ) -> set[int]:
        step = self.row["step"] if step is None else step
        features = set()
        for k, latent in enumerate(self.row.get(side) or ()):
            feature = assignments[step].feature.get(latent) if step in assignments else None
            if feature is None:
                track = tracks[k] if tracks and k < len(tracks) else report.track_of.get((step, latent))
                feature = _feature_of_track(track, step, side == "parents", assignments, report)
            if feature is not None:
                features.add(feature)
        return features

    def names(self, event: Event) -> bool:
        """Whether it is about the features of this true event."""
        parents, children = self.parents & set(event.parents), self.children & set(event.children)
        if event.kind == "birth":
            return bool(children)
        if event.kind == "death":
            return bool(parents)
        if event.kind == "split":
            return bool(parents) and len(children) >= 2
        if event.kind == "merge":
            return len(parents) >= 2 and bool(children)
        return bool(parents or children)

    def off_by(self, event: Event) -> int:
        """How many checkpoints its date is off."""
        if event.kind == "drift":
            return 0
        true = [event.checkpoint] if event.until is None else [event.checkpoint, event.until]
        return min(abs(date - at) for date in self.dates for at in true)

    def described(self) -> Row:
        return {**self.row, "features": {"parents": sorted(self.parents), "children": sorted(self.children)}}


def _pairs(events: list[Event], claims: list[_Claim], within: int) -> list[tuple[Event, int]]:
    """True events and the claims that report them: as many pairs as can be, then the best dated."""
    if not events or not claims:
        return []
    value = np.zeros((len(events), len(claims)))
    for e, event in enumerate(events):
        for c, claim in enumerate(claims):
            if claim.names(event) and (off := claim.off_by(event)) <= within:
                value[e, c] = 1 - off / (100 * (within + 1))
    rows, columns = linear_sum_assignment(value, maximize=True)
    return [(events[e], int(c)) for e, c in zip(rows, columns, strict=True) if value[e, c] > 0]


def _feature_of_track(
    track: int | None, step: int, before: bool, assignments: Assignments, report: Report
) -> int | None:
    """What the track is at the checkpoint nearest to ``step``, at or before it (``before``) or at or after it."""
    places = report.latents_of.get(track, []) if track is not None else []
    places = [place for place in places if (place[0] <= step if before else place[0] >= step)]
    for at, latent in sorted(places, key=lambda place: abs(place[0] - step)):
        if at in assignments and (feature := assignments[at].feature.get(latent)) is not None:
            return feature
    return None


def _nearest(step: int, index: dict[int, int]) -> int:
    return index[step] if step in index else index[min(index, key=lambda known: abs(known - step))]


def _bud_parents(found: list[tuple[Event, _Claim]]) -> Counts:
    total = Counts()
    for event, claim in found:
        if event.plan == "bud":
            right = bool(claim.parents & set(event.parents))
            total += Counts(right, bool(claim.parents) and not right, not right and not claim.parents)
    return total


# --- links and tracks -----------------------------------------------------------------------------------------


def link_counts(truth: Truth, assignments: Assignments, report: Report) -> Counts:
    """Right, wrong and missing links between consecutive checkpoints; links over a gap are not judged here."""
    shown = [step for step in truth.steps if step in assignments]
    following = dict(pairwise(shown))
    right, false, linked = 0, 0, set()
    for row in report.links:
        if following.get(row["from_step"]) != row["to_step"]:
            continue
        one = assignments[row["from_step"]].feature.get(row["from_latent"])
        other = assignments[row["to_step"]].feature.get(row["to_latent"])
        if one is None or other is None:
            continue
        right, false = right + (one == other), false + (one != other)
        if one == other:
            linked.add((row["from_step"], one))
    wanted = {
        (a, feature)
        for a, b in following.items()
        for feature in assignments[a].principal.keys() & assignments[b].principal
    }
    return Counts(right, false, len(wanted - linked))


def identity_f1(assignments: Assignments, report: Report) -> float:
    """IDF1 of the tracks over the principal latents, in [0, 1]; nan where no feature is shown at all."""
    features: dict[int, int] = {}
    tracks: dict[int, int] = {}
    together: dict[tuple[int, int], int] = {}
    detections = tracked = 0
    for step, assignment in assignments.items():
        for feature, latent in assignment.principal.items():
            detections += 1
            track = report.track_of.get((step, latent))
            if track is not None:
                tracked += 1
                key = features.setdefault(feature, len(features)), tracks.setdefault(track, len(tracks))
                together[key] = together.get(key, 0) + 1
    overlap = np.zeros((len(features), len(tracks)))
    for (f, t), count in together.items():
        overlap[f, t] = count
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return _ratio(2 * overlap[rows, columns].sum(), detections + tracked)


def dormancy_kept(truth: Truth, assignments: Assignments, report: Report) -> float:
    """Share of the gaps, shown on both sides, that one track spans."""
    kept = total = 0
    for event in truth.of_kind("dormancy"):
        before = _shown(truth, assignments, event.parents[0], range(event.checkpoint - 1, -1, -1))
        after = _shown(truth, assignments, event.parents[0], range(event.until or 0, len(truth.steps)))
        if before and after:
            tracks = report.track_of.get(before), report.track_of.get(after)
            total, kept = total + 1, kept + (tracks[0] is not None and tracks[0] == tracks[1])
    return _ratio(kept, total)


def _shown(truth: Truth, assignments: Assignments, feature: int, checkpoints: Iterable[int]) -> tuple[int, int] | None:
    """The first (step, principal latent) that shows the feature."""
    for i in checkpoints:
        assignment = assignments.get(truth.steps[i])
        if assignment and feature in assignment.principal:
            return truth.steps[i], assignment.principal[feature]
    return None


def transition_counts(truth: Truth, report: Report) -> Counts:
    """Transitions found, invented and missed."""
    windows = [(row["from_step"], row["to_step"]) for row in report.transitions]

    def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return max(a[0], b[0]) < min(a[1], b[1])

    true = [(transition.from_step, transition.to_step) for transition in truth.transitions]
    right = sum(any(overlap(window, other) for other in windows) for window in true)
    false = sum(not any(overlap(window, other) for other in true) for window in windows)
    return Counts(right, false, len(true) - right)


# --- the ceiling ----------------------------------------------------------------------------------------------


def ceiling(truth: Truth, assignments: Assignments, within: int | None = 1) -> dict[str, Counts]:
    """What the best tracker could say with these dictionaries: for each kind, and ``core``, nothing false.

    An event can be reported if the dictionaries show what it is about: a birth its child, a death its parent, a split
    its parent and at least two children, a merge at least two parents and the child, rotation and dormancy the feature
    on both sides, drift the feature at both ends of the history. "Show" means within ``within`` checkpoints of the
    date: at the last ``within + 1`` checkpoints before, or the first ``within + 1`` after. None means anywhere on that
    side: the bound for a tracker that dates events by the activations and not by the dictionaries.
    """
    counts = {}
    for kind in KINDS:
        events = truth.of_kind(kind)
        right = sum(_reportable(event, truth, assignments, within) for event in events)
        counts[kind] = Counts(right, 0, len(events) - right)
    return counts | {"core": _pooled(counts, CORE_KINDS)}


def _reportable(event: Event, truth: Truth, assignments: Assignments, within: int | None) -> bool:
    last = len(truth.steps)
    reach = last if within is None else within + 1
    start, end = event.checkpoint, event.until if event.until is not None else event.checkpoint
    before, after = range(max(0, start - reach), start), range(end, min(last, end + reach))
    if event.kind == "drift":
        before, after = range(min(last, reach)), range(max(0, last - reach), last)
    parents = sum(_shown(truth, assignments, feature, before) is not None for feature in event.parents)
    children = sum(_shown(truth, assignments, feature, after) is not None for feature in event.children)
    needed = {"birth": (0, 1), "death": (1, 0), "split": (1, 2), "merge": (2, 1)}.get(event.kind, (1, 1))
    return parents >= needed[0] and children >= needed[1]


def shown_share(truth: Truth, assignments: Assignments) -> float:
    """Share of the (checkpoint, living feature) pairs that some latent shows: how good the dictionaries are."""
    alive = shown = 0
    for i, step in enumerate(truth.steps):
        if step in assignments:
            here = [feature.id for feature in truth.features if feature.alive[i]]
            alive += len(here)
            shown += sum(feature in assignments[step].principal for feature in here)
    return _ratio(shown, alive)


def _pooled(counts: dict[str, Counts], kinds: Iterable[str]) -> Counts:
    return sum((counts[kind] for kind in kinds), Counts())


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


__all__ = [
    "Assignment", "Counts", "Report", "Scores", "ceiling", "dormancy_kept", "identity_f1", "link_counts", "score",
    "shown_share", "transition_counts",
]  # fmt: skip
