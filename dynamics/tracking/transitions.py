"""Transitions: windows in which the whole population reorganises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from dynamics.answers import counted
from dynamics.tracking.events import Event
from dynamics.tracking.following import Followed
from dynamics.tracking.procrustes import procrustes

FEWEST = 8
"""Checkpoints below which nothing is said."""
SHIFTS = 999
"""Random circular shifts of the series against each other, where there are too many to take every one of them."""
EVERY_SHIFT = 2000
"""Up to here every one is taken: drawn at random, a peak that no other shift reaches is at the gate by chance."""
GATE = 0.01
"""p-value up to which a window is called a transition."""
STANDING_OUT = 3.0
"""Robust deviations that a family of series must stand out by in the window."""
FAMILIES = {"turnover": "dictionary", "events": "dictionary", "movement": "activations", "loss": "loss"}


@dataclass(frozen=True)
class Transitions:
    """The windows, the curves that they were looked for in, and what cannot be told."""

    table: pa.Table
    change: pa.Table
    notes: list[str]


def transitions(f: Followed, events: list[Event], losses: Sequence[float | None] = ()) -> Transitions:
    """Windows where series of two families or more peak together beyond chance.

    Series, one value for each pair of neighbouring checkpoints: share of live latents without a link (turnover), core
    events at q ≤ 0.1 (events), share of the activations' variance that no rotation explains (movement), change of the
    loss. Each is put in robust deviations from its median; a window scores their geometric mean, counted from 1. Null:
    the series shifted circularly against each other, the largest score over all windows (He et al. 2026).
    """
    curves = _curves(f, events, losses)
    change = _change_table(f.carrying.series.steps, curves)
    n = len(f.carrying.series)
    if n < FEWEST:
        seen = counted(n, "checkpoint")
        note = f"whether there was a transition cannot be told from {seen}; {FEWEST} are needed"
        return Transitions(_rows([]), change, [note])
    z = {name: _deviations(values) for name, values in curves.items()}
    stacked = np.stack(list(z.values()))
    score = _window_scores(stacked)
    null = _shifted_maxima(stacked)
    peak = int(score.argmax())
    p = float(np.mean(null >= score[peak]))
    agreeing = sorted(name for name, values in z.items() if values[peak] >= STANDING_OUT)
    families = {FAMILIES[name] for name in agreeing}
    resolution = f"the null of shifted series resolves p down to {1 / len(null):.2g}"
    steps = f.carrying.series.steps
    if p > GATE or len(families) < 2:
        where = f"steps {steps[peak]} to {steps[peak + 1]}"
        return Transitions(
            _rows([]),
            change,
            [f"no transition beyond chance; the likeliest window is {where} (p = {p:.2g}); {resolution}"],
        )
    first, last = _extent(score, peak)
    label = ",".join(agreeing) + ("; escape from initialisation" if first == 0 else "")
    row = (steps[first], steps[last + 1], steps[peak + 1], float(score[peak]), p, label)
    return Transitions(_rows([row]), change, [resolution])


def _curves(f: Followed, events: list[Event], losses: Sequence[float | None]) -> dict[str, Float[np.ndarray, " pairs"]]:
    live = [len(of) for of in f.tracks.of]
    series = f.carrying.series
    pairs = range(len(live) - 1)
    turnover = [1 - 2 * len(f.steps[k].links) / max(live[k] + live[k + 1], 1) for k in pairs]
    dated = [e.date for e in events if e.kind in ("birth", "death", "split", "merge") and e.accepted]
    counts = np.bincount(np.array(dated, dtype=np.int64), minlength=len(live) + 1)[1 : len(live)]
    movement = [procrustes(series[k].activations, series[k + 1].activations)[1] for k in pairs]
    curves = {"turnover": np.array(turnover), "events": counts.astype(float), "movement": np.array(movement)}
    known = np.array([np.nan if x is None else x for x in losses], dtype=float)
    if len(known) == len(live) and np.isfinite(known).all():
        curves["loss"] = np.abs(np.diff(known))
    return curves


def _deviations(values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Above the median, in robust standard deviations; a twentieth of the median and a thousandth at least."""
    middle = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - middle))
    return np.asarray((values - middle) / max(spread, 0.05 * abs(middle), 1e-3))


def _window_scores(z: Float[np.ndarray, "series pairs"]) -> Float[np.ndarray, " pairs"]:
    return np.asarray(np.exp(np.log1p(np.clip(z, 0, 50)).mean(axis=0)) - 1)


def _shifted_maxima(z: Float[np.ndarray, "series pairs"]) -> Float[np.ndarray, " shifts"]:
    """The largest window score of every way to shift the series against the first, or of some; not shifted, first."""
    count, length = z.shape
    if length ** (count - 1) <= EVERY_SHIFT:
        shifts = np.array(list(product([0], *[range(length)] * (count - 1))))
    else:
        shifts = np.random.default_rng(0).integers(0, length, (1 + SHIFTS, count))
        shifts[0] = 0
    return np.array(
        [_window_scores(np.stack([np.roll(row, s) for row, s in zip(z, shift, strict=True)])).max() for shift in shifts]
    )


def _extent(score: Float[np.ndarray, " pairs"], peak: int) -> tuple[int, int]:
    """Neighbouring windows that score at least half of the peak."""
    first = last = peak
    while first > 0 and score[first - 1] >= score[peak] / 2:
        first -= 1
    while last + 1 < len(score) and score[last + 1] >= score[peak] / 2:
        last += 1
    return first, last


def _rows(rows: list[tuple[int, int, int, float, float, str]]) -> pa.Table:
    types = {
        "from_step": pa.int64(),
        "to_step": pa.int64(),
        "peak_step": pa.int64(),
        "score": pa.float64(),
        "p_value": pa.float64(),
    }
    columns = list(zip(*rows, strict=True)) or [()] * 6
    names = {**types, "series": pa.string()}
    return pa.table({name: pa.array(c, t) for (name, t), c in zip(names.items(), columns, strict=True)})


def _change_table(steps: list[int], curves: dict[str, Float[np.ndarray, " pairs"]]) -> pa.Table:
    count = len(steps) - 1
    return pa.table(
        {
            "step": pa.array(np.tile(steps[1:], len(curves)), pa.int64()),
            "series": pa.array(np.repeat(list(curves), count), pa.string()),
            "value": pa.array(np.concatenate([np.zeros(0), *curves.values()]), pa.float64()),
        }
    )
