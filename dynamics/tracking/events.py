"""From scored candidates to events: what is claimed, on what evidence, and why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from dynamics.tracking.beginnings import THERE
from dynamics.tracking.calibration import p_values, q_values, smallest_p
from dynamics.tracking.claims import CORE, KINDS, Claims, Family, Units, newcomer
from dynamics.tracking.divisions import Division
from dynamics.tracking.following import Followed
from dynamics.tracking.lineage import Edge, tracks_from
from dynamics.tracking.timeline import Timeline

ACCEPT = 0.1
"""q-value up to which a split or merge also cuts the tracks that it joins."""
OVERLAP = 0.5
"""Jaccard index of two children's rows above which they are one feature twice."""
COVERAGE = 0.5
"""Share of the parent's rows that the children must fire on, against what a continuing latent's do."""

ALIKE = 0.9
"""Share of the best score of a parent's families from which another says the same."""
BUD = 0.6
"""Share of a newborn's rows on which a feature fires that it budded in."""
TOLD = {"birth": 1.5, "death": 1.5, "split": 1.25, "merge": 1.25, "rotation": 1.0, "drift": 1.0}
"""Scores are in units of what the estimates cannot tell: below this nothing is told. Births and deaths have to stand
out further: a latent that changes hands, or sees half a split, is the birth of nothing."""
WEAK = "too faint to be told"
AWAY = 2.5
"""Fall of the presence in a gap, in units of what the estimate can tell, from which a feature is called dormant."""

Place = tuple[int, int]
"""(position in the series, position among the live latents there)."""


@dataclass(frozen=True)
class Event:
    """One candidate for an event; ``reason`` says why it is none, whatever its q."""

    kind: str
    date: int
    """Position in the series of the first checkpoint of the new state."""
    parents: tuple[Place, ...]
    children: tuple[Place, ...]
    score: float
    evidence: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    p_value: float | None = None
    q_value: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the tracker itself goes by it, whatever level is published."""
        return self.reason is None and self.q_value is not None and self.q_value <= ACCEPT


@dataclass(frozen=True)
class Calibration:
    """Error control of each kind of event against the pooled null candidates."""

    null: dict[str, np.ndarray]
    tests: dict[str, int]

    @classmethod
    def of(cls, chain: Claims, nulls: list[Claims]) -> Calibration:
        """From the chain's candidates and those of every null series."""
        scores = {k: np.concatenate([np.zeros(0), *(n.units(k).score for n in nulls)]) for k in KINDS}
        return cls(scores, {k: len(chain.units(k).score) for k in KINDS})

    def judged(self, events: list[Event]) -> list[Event]:
        """The events of one kind with p- and q-values; those with a reason against them are tested, never counted."""
        if not events:
            return events
        kind = events[0].kind
        events = [replace(e, reason=e.reason or (WEAK if e.score < TOLD[kind] else None)) for e in events]
        p = self.p_values(kind, np.array([e.score for e in events]))
        open_ = np.array([e.reason is None for e in events])
        q = np.ones(len(events))
        q[open_] = q_values(p[open_], self.tests[kind])
        q[~open_] = np.minimum(1, p[~open_] * max(self.tests[kind], 1))
        return [replace(e, p_value=float(a), q_value=float(b)) for e, a, b in zip(events, p, q, strict=True)]

    def p_values(self, kind: str, scores: np.ndarray) -> np.ndarray:
        """Chance that a null candidate of a kind scores at least as high."""
        return p_values(scores, self.null[kind], self._kindred(kind))

    def _kindred(self, kind: str) -> np.ndarray | None:
        """Births, deaths, splits and merges are all scored in units of what the presence or cosine cannot tell."""
        return np.concatenate([self.null[k] for k in CORE]) if kind in CORE else None

    def smallest_p(self, kind: str) -> float:
        """The smallest p-value that an event of a kind could have."""
        return smallest_p(self.null[kind], self._kindred(kind))


def division_events(kind: str, timeline: Timeline, found: list[Family]) -> list[Event]:
    """One candidate for each parent's track: its best family with a child that begins in between.

    Of those that say nearly the same the one whose checkpoints are nearest to each other; and of parents that are
    given the same parts the nearest.
    """
    of: dict[int, list[Family]] = {}
    for family in found:
        if newcomer(timeline, family) is not None:
            of.setdefault(int(timeline.track_of(family.former)[family.division.parent]), []).append(family)
    clearest = [_clearest(families) for families in of.values()]
    nearest = {_parts(timeline, family): family for family in sorted(clearest, key=_nearness)}
    return [
        _division_event(kind, timeline, family, nearest=family is nearest[_parts(timeline, family)])
        for family in clearest
    ]


def _nearness(family: Family) -> tuple[bool, float]:
    return _division_reason(family.division) is None, family.division.kinship * family.division.coverage


def _parts(timeline: Timeline, family: Family) -> frozenset[int]:
    """Tracks of the two surest children: they part once, whoever's children they are taken for."""
    return frozenset(timeline.track_of(family.latter)[list(family.division.children[:2])].tolist())


def _clearest(families: list[Family]) -> Family:
    best = max(family.division.score for family in families)
    alike = [family for family in families if family.division.score >= ALIKE * best]
    return min(alike, key=lambda family: (family.latter - family.former, -family.division.score))


def _division_event(kind: str, timeline: Timeline, family: Family, *, nearest: bool) -> Event:
    d = family.division
    parent = (_whole_parent(timeline, family),)
    children = tuple((timeline.place(family.latter), c) for c in d.children)
    before, after = (children, parent) if timeline.backwards else (parent, children)
    evidence = {
        "together": d.together,
        "apart": d.apart,
        "kinship": d.kinship,
        "coverage": d.coverage,
        "overlap": d.overlap,
    }
    reason = _division_reason(d) or (None if nearest else "its parts are nearer to another")
    return Event(kind, _date(timeline, d.date), before, after, d.score, evidence, reason)


def _whole_parent(timeline: Timeline, family: Family) -> Place:
    """The parent where its children were still together: in the middle of a slow split it is taken for one of them."""
    whole = min(family.division.whole, family.former)
    position = int(timeline.position_at(family.former, whole)[family.division.parent])
    if position < 0:
        whole, position = family.former, family.division.parent
    return timeline.place(whole), position


def _division_reason(division: Division) -> str | None:
    if division.overlap > OVERLAP:
        return "duplicate"
    if division.coverage < COVERAGE:
        return "children fire on too few of the parent's rows"
    return None


def _date(timeline: Timeline, place: int) -> int:
    """First checkpoint of the new state: read backwards, the one after the last of the old."""
    return timeline.place(place) + (1 if timeline.backwards else 0)


def cut(followed: Followed, events: list[Event]) -> Followed:
    """Tracks that end where they split and begin where they merge.

    A link joins a parent to at most one of its children; where a division is accepted it is cut at its date.
    """
    cuts: set[Place] = set()
    for event in events:
        for parent in event.parents:
            for child in event.children:
                cuts |= _crossing(followed, parent, child, event.date)
    edges = []
    for step in (*followed.steps, *followed.gaps):
        keep = np.array([(step.earlier, int(i)) not in cuts for i in step.links.i], dtype=bool)
        edges.append(Edge(step.earlier, step.later, step.links.i[keep], step.links.j[keep]))
    live = [len(of) for of in followed.tracks.of]
    return replace(followed, tracks=tracks_from(edges, live))


def _crossing(followed: Followed, parent: Place, child: Place, date: int) -> set[Place]:
    """The latent before the link that carries a parent's track over the date, where it leads to the child."""
    of = followed.tracks.of
    if of[parent[0]][parent[1]] != of[child[0]][child[1]]:
        return set()
    before = [
        p for p in followed.tracks.positions[of[parent[0]][parent[1]]] if parent[0] <= p[0] < max(date, parent[0] + 1)
    ]
    return {before[-1]}


def beginning_events(kind: str, claims: Claims, excluded: dict[Place, str]) -> list[Event]:
    """One candidate for every track that begins (births) or ends (deaths) inside the series."""
    timeline, found = (claims.forward, claims.births) if kind == "birth" else (claims.backward, claims.deaths)
    events = []
    for k, b in found.items():
        lasting = timeline.lasting_starts(k)
        for n in np.flatnonzero(timeline.starts(k)):
            here = (timeline.place(k), int(n))
            reason = excluded.get(here) or (None if lasting[n] else "seen at one checkpoint only")
            evidence = {"presence_before": float(b.before[n]), "presence_after": float(b.after[n])}
            if timeline.backwards:
                evidence = {"presence_before": float(b.after[n]), "presence_after": float(b.before[n])}
            host = () if timeline.backwards or reason else _host(timeline, k, int(n))
            sides: tuple[tuple[Place, ...], tuple[Place, ...]] = (
                ((here,), ()) if timeline.backwards else (host, (here,))
            )
            events.append(Event(kind, _date(timeline, int(b.date[n])), *sides, float(b.score[n]), evidence, reason))
    return events


def _host(timeline: Timeline, k: int, child: int) -> tuple[Place, ...]:
    """The feature inside whose rows a newborn budded: it lived before and lives on. None where there is none."""
    codes, before = timeline.carrying.series[timeline.place(k)].codes, timeline.position_at(k, k - 1)
    rows = codes.indices[codes.indptr[child] : codes.indptr[child + 1]]
    inside = np.diff(sp.csc_array(codes.tocsr()[rows]).indptr) / len(rows)
    able = (inside >= BUD) & (before >= 0) & ~timeline.dense(k)
    able[child] = False
    if not able.any():
        return ()
    host = int(np.where(able, inside, 0).argmax())
    return ((timeline.place(k - 1), int(before[host])),)


def rotation_events(claims: Claims, tested: Callable[[Units], np.ndarray]) -> list[Event]:
    """A candidate for every link whose feature turned further than one in twenty of the null's."""
    events = []
    for k, t in claims.turns.items():
        p = tested(Units(np.full(len(t.j), k), t.j, t.score))
        for n in np.flatnonzero(p <= 0.05):
            parent, child = (k - 1, int(t.i[n])), (k, int(t.j[n]))
            evidence = {"angle": float(t.angle[n]), "usual_angle": t.usual, "correlation": float(t.correlation[n])}
            reason = None if t.as_before[n] else "fires on other rows than before"
            events.append(Event("rotation", k, (parent,), (child,), float(t.score[n]), evidence, reason))
    return events


def drift_events(claims: Claims, rotations: list[Event], tested: Callable[[Units], np.ndarray]) -> list[Event]:
    """A candidate for every track that turned further than one in twenty of the null's, unless it did so at once."""
    d, tracks = claims.drifts, claims.forward.tracks
    at_once: dict[int, float] = {}
    for event in rotations:
        if event.q_value is not None and event.q_value <= ACCEPT:
            place, position = event.children[0]
            track = int(tracks.of[place][position])
            at_once[track] = max(at_once.get(track, 0.0), event.evidence["angle"] - event.evidence["usual_angle"])
    events = []
    for n in np.flatnonzero(tested(Units(d.first, d.track, d.score)) <= 0.05):
        track = int(d.track[n])
        sudden = at_once.get(track, 0.0) > 0.5 * (d.angle[n] - d.usual[n])
        evidence = {"angle": float(d.angle[n]), "usual_angle": float(d.usual[n])}
        ends = (tracks.first(track),), (tracks.last(track),)
        events.append(
            Event("drift", int(d.last[n]), *ends, float(d.score[n]), evidence, "turned at once" if sudden else None)
        )
    return events


def dormancy_events(followed: Followed) -> list[Event]:
    """Every link over missed checkpoints: away, not dead and born again, unless the model carried it all along."""
    timeline, events = Timeline(followed.carrying, followed.tracks), []
    for gap in followed.gaps:
        missed = range(gap.earlier + 1, gap.later)
        carried = np.min([timeline.presence(gap.earlier, k) for k in missed], axis=0)
        blur = timeline.blur(gap.earlier)
        back = timeline.mutual_presence(gap.earlier, gap.later, gap.links.i, gap.links.j)
        columns = zip(gap.links.i, gap.links.j, gap.links.score, gap.links.p_value, back, strict=True)
        for i, j, score, p_value, again in columns:
            if followed.tracks.of[gap.earlier][i] != followed.tracks.of[gap.later][j]:
                continue
            evidence = {
                "link_p_value": float(p_value), "presence_in_gap": float(carried[i]), "presence_after": float(again)
            }  # fmt: skip
            track = followed.tracks.positions[followed.tracks.of[gap.earlier][i]]
            sides_seen = sum(p[0] <= gap.earlier for p in track), sum(p[0] >= gap.later for p in track)
            reason = None
            if min(sides_seen) == 1:
                reason = "seen at one checkpoint only"
            elif again < THERE:
                reason = "what came back is not what went away"
            elif (1 - carried[i]) / blur[i] < AWAY:
                reason = "not told from a feature that the model carried all along"
            sides = ((gap.earlier, int(i)),), ((gap.later, int(j)),)
            events.append(Event("dormancy", gap.earlier + 1, *sides, float(score), evidence, reason))
    return events
