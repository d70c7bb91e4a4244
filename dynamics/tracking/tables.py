"""The findings as tables, named and laid out as the database's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pyarrow as pa

from dynamics.tracking.checkpoint import Checkpoint
from dynamics.tracking.claims import KINDS, Claims
from dynamics.tracking.events import ACCEPT, Calibration, Event, Place
from dynamics.tracking.following import Followed, Step
from dynamics.tracking.lineage import components

INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()
INTS = pa.list_(INT)


def pairs(chain: Followed, nulls: dict[int, Followed]) -> pa.Table:
    """Every pair of checkpoints that was compared."""
    schema = _schema(
        from_step=INT, to_step=INT, arm=TEXT, seed=INT, live_from=INT, live_to=INT, candidates=INT, links=INT,
        threshold=FLOAT,
    )  # fmt: skip
    return _table(schema, (row for arm, seed, f in _arms(chain, nulls) for row in _pair_rows(arm, seed, f)))


def _arms(chain: Followed, nulls: dict[int, Followed]) -> Iterator[tuple[str, int, Followed]]:
    yield "chain", 0, chain
    yield from (("null", seed, null) for seed, null in nulls.items())


def _pair_rows(arm: str, seed: int, f: Followed) -> Iterator[tuple[object, ...]]:
    live, steps = [len(of) for of in f.tracks.of], f.carrying.series.steps
    for s in (*f.steps, *f.gaps):
        counts = live[s.earlier], live[s.later], s.candidates, len(s.links)
        yield steps[s.earlier], steps[s.later], arm, seed, *counts, s.threshold


def links(f: Followed) -> pa.Table:
    """The one-to-one continuations of the tracked chain; those that a split or merge cut are left out."""
    return pa.concat_tables([_link_table(f, step) for step in (*f.steps, *f.gaps)] or [_no_links()])


LINK_COLUMNS = (
    "cosine", "overlap", "correlation", "ahead", "back", "score", "margin", "reciprocal", "p_value", "q_value",
)  # fmt: skip


def _link_table(f: Followed, step: Step) -> pa.Table:
    a, b, of = f.carrying.series[step.earlier], f.carrying.series[step.later], f.tracks.of
    kept = step.links.only(of[step.earlier][step.links.i] == of[step.later][step.links.j])
    n, values = len(kept), asdict(kept)
    columns = {
        "from_step": pa.array(np.full(n, a.step), INT),
        "from_latent": pa.array(a.latents[kept.i], INT),
        "to_step": pa.array(np.full(n, b.step), INT),
        "to_latent": pa.array(b.latents[kept.j], INT),
        **{name: pa.array(values[name], BOOL if name == "reciprocal" else FLOAT) for name in LINK_COLUMNS},
        "gap": pa.array(np.full(n, step.later - step.earlier - 1), INT),
    }
    return pa.table(columns)


def _no_links() -> pa.Table:
    names = {"from_step": INT, "from_latent": INT, "to_step": INT, "to_latent": INT}
    scores = {name: BOOL if name == "reciprocal" else FLOAT for name in LINK_COLUMNS}
    return _table(_schema(**names, **scores, gap=INT), [])


EVENT_SCHEMA = pa.schema(
    [
        *(pa.field(n, t) for n, t in {"event": TEXT, "kind": TEXT, "arm": TEXT, "seed": INT, "step": INT}.items()),
        *(pa.field(n, INT) for n in ("from_step", "to_step")),
        *(pa.field(n, INTS) for n in ("parents", "children", "parent_tracks", "child_tracks")),
        *(pa.field(n, FLOAT) for n in ("score", "p_value", "q_value")),
        pa.field("reason", TEXT),
        pa.field("evidence", pa.map_(TEXT, FLOAT)),
    ]
)


def event_candidates(
    name: str, f: Followed, events: list[Event], nulls: dict[int, Claims], calibration: Calibration
) -> pa.Table:
    """The chain's candidates, then every null candidate that scores above nothing."""
    rows = [_event_row(name, f, event) for event in events]
    for seed, claims in nulls.items():
        for kind in KINDS:
            rows.extend(_null_rows(name, seed, claims, kind, calibration))
    return _table(EVENT_SCHEMA, rows)


def _event_row(name: str, f: Followed, event: Event) -> tuple[object, ...]:
    steps = f.carrying.series.steps
    latents = [[int(f.carrying.series[p].latents[n]) for p, n in side] for side in (event.parents, event.children)]
    joined = [sorted({int(f.tracks.of[p][n]) for p, n in side}) for side in (event.parents, event.children)]
    first, last = (steps[side[0][0]] if side else None for side in (event.parents, event.children))
    date = steps[min(event.date, len(steps) - 1)]
    label = "+".join(str(n) for n in (latents[0] or latents[1]))
    evidence = {k: v for k, v in event.evidence.items() if np.isfinite(v)}
    return (
        f"{name}:{event.kind}:{date}:{first if first is not None else last}:{label}", event.kind, "chain", 0, date,
        first, last, *latents, *joined, event.score, event.p_value, event.q_value, event.reason, list(evidence.items()),
    )  # fmt: skip


def _null_rows(
    name: str, seed: int, claims: Claims, kind: str, calibration: Calibration
) -> Iterator[tuple[object, ...]]:
    units, series = claims.units(kind), claims.forward.carrying.series
    above = np.flatnonzero(units.score > 0)
    p = calibration.p_values(kind, units.score[above])
    for n, p_value in zip(above, p, strict=True):
        checkpoint = series[int(units.checkpoint[n])]
        latent = [int(checkpoint.latents[units.position[n]])]
        sides = (latent, []) if kind in ("death", "merge") else ([], latent)
        event = f"{name}:null{seed}:{kind}:{checkpoint.step}:{latent[0]}"
        score = float(units.score[n])
        yield (
            event,
            kind,
            "null",
            seed,
            checkpoint.step,
            None,
            None,
            *sides,
            [],
            [],
            score,
            float(p_value),
            None,
            None,
            [],
        )


def feature_history(f: Followed, claims: Claims, events: list[Event]) -> pa.Table:
    """One row for every track and checkpoint at which it lives."""
    lineage = lineages(f, events)
    seen: dict[Place, Place] = {}
    for positions in f.tracks.positions:
        seen.update({later: earlier for earlier, later in pairwise(positions)})
    parts = [_history_part(f, claims, k, lineage, seen) for k in range(len(f.tracks.of))]
    return pa.concat_tables(parts)


def _history_part(f: Followed, claims: Claims, k: int, lineage: np.ndarray, seen: dict[Place, Place]) -> pa.Table:
    here, track = f.carrying.series[k], f.tracks.of[k]
    turned, usual = np.full(len(track), np.nan), np.full(len(track), np.nan)
    if k in claims.turns:
        turned[claims.turns[k].j], usual[claims.turns[k].j] = claims.turns[k].angle, claims.turns[k].usual
    contribution = np.sqrt(_mean_square(here)) / here.scale
    cosine, start = _decoder_cosines(f, k, seen)
    columns = {
        "track": track,
        "lineage": lineage[track],
        "step": np.full(len(track), here.step),
        "latent": here.latents,
        "density": _density(here),
        "mean_activation": np.asarray(here.codes.sum(axis=0)).ravel() / np.diff(here.codes.indptr).clip(1) / here.scale,
        "cosine_to_previous": cosine,
        "angle_from_start": np.degrees(np.arccos(np.clip(start, -1, 1))),
        "turned": turned,
        "null_turned": usual,
        "presence": np.minimum(1, 1 / (1 + f.carrying.carried(k, k).uncertainty ** 2)),
        "contribution": contribution,
    }
    types = {name: INT if name in ("track", "lineage", "step", "latent") else FLOAT for name in columns}
    return pa.table({name: pa.array(v, types[name], from_pandas=True) for name, v in columns.items()})


def _density(checkpoint: Checkpoint) -> np.ndarray:
    return np.asarray(np.diff(checkpoint.codes.indptr) / checkpoint.n_rows)


def _mean_square(checkpoint: Checkpoint) -> np.ndarray:
    return np.asarray(np.asarray(checkpoint.codes.multiply(checkpoint.codes).sum(axis=0)).ravel() / checkpoint.n_rows)


def _decoder_cosines(f: Followed, k: int, seen: dict[Place, Place]) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each latent's decoder row with its track's previous and with its first."""
    series, here = f.carrying.series, f.carrying.series[k]
    previous, first = np.full(here.n_live, np.nan), np.ones(here.n_live)
    for n, track in enumerate(f.tracks.of[k]):
        if (k, n) in seen:
            p, m = seen[(k, n)]
            previous[n] = float(series[p].decoder[m] @ here.decoder[n])
            p, m = f.tracks.first(int(track))
            first[n] = float(series[p].decoder[m] @ here.decoder[n])
    return previous, first


def lineages(f: Followed, events: list[Event]) -> np.ndarray:
    """A number for every track, equal for those that accepted splits and merges join."""
    of = f.tracks.of
    joins = [
        (int(of[p][n]), int(of[q][m]))
        for e in events
        if e.kind in ("split", "merge") and e.reason is None and (e.q_value or 0) <= ACCEPT
        for p, n in e.parents
        for q, m in e.children
    ]
    edges = np.array(joins, dtype=np.int64).reshape(-1, 2)
    return components([(edges[:, 0], edges[:, 1])], len(f.tracks))


def tracks(f: Followed, events: list[Event]) -> pa.Table:
    """One row a track; censored where it was there at the first or is still there at the last checkpoint."""
    steps, lineage = f.carrying.series.steps, lineages(f, events)
    schema = _schema(
        track=INT, lineage=INT, first_step=INT, last_step=INT, checkpoints=INT, left_censored=BOOL, right_censored=BOOL
    )
    rows = [
        (t, int(lineage[t]), steps[p[0][0]], steps[p[-1][0]], len(p), p[0][0] == 0, p[-1][0] == len(steps) - 1)
        for t, p in enumerate(f.tracks.positions)
    ]
    return _table(schema, rows)


def population(f: Followed, claims: Claims, nulls: dict[int, Claims], n_latents: int) -> pa.Table:
    """Live and dead latents and the median turn of their features, in degrees, beside the null arm's."""
    usual = [t.usual for null in nulls.values() for t in null.turns.values()]
    mean, high = (float(np.mean(usual)), float(np.max(usual))) if usual else (None, None)
    schema = _schema(step=INT, live=INT, dead=INT, mean_drift=FLOAT, null_drift=FLOAT, null_drift_high=FLOAT)
    rows = []
    for k, step in enumerate(f.carrying.series.steps):
        live = len(f.tracks.of[k])
        turn = claims.turns[k].usual if k in claims.turns and len(claims.turns[k].angle) else None
        rows.append((step, live, n_latents - live, turn, mean, high))
    return _table(schema, rows)


def resolution(calibration: Calibration) -> pa.Table:
    """How sharp the error control of each kind can be."""
    schema = _schema(kind=TEXT, tests=INT, null_candidates=INT, smallest_p=FLOAT)
    rows = [(k, calibration.tests[k], len(calibration.null[k]), calibration.smallest_p(k)) for k in KINDS]
    return _table(schema, rows)


def _schema(**fields: pa.DataType) -> pa.Schema:
    return pa.schema(list(fields.items()))


def _table(schema: pa.Schema, rows: Iterable[tuple[object, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
