"""Onset: the first checkpoint whose activations carry a feature linearly, asked without any SAE of that checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from dynamics.tracking.carrying import halves
from dynamics.tracking.following import Followed

RIDGE = 0.01
"""λ against the mean eigenvalue of the activations' covariance."""
NULL_QUANTILE = 0.99
CHUNK = 512
"""Tracks read out at once."""


def onsets(f: Followed) -> pa.Table:
    """One row for every track seen twice or more: first step carried, and the steps between which it began.

    A feature's code z, where its track is densest, is regressed on the activations of every checkpoint on one half of
    the sequences; what counts is the correlation on the other half. Carried: above what 99 of 100 tracks reach with z
    moved to other rows, and above half way from there to the feature's best, at two checkpoints running (alone at the
    last). ``censored`` is ``left`` where the first checkpoint carries it already, ``right`` where none does.
    """
    tracks = np.array([t for t, p in enumerate(f.tracks.positions) if len(p) >= 2], dtype=np.int64)
    steps = f.carrying.series.steps
    codes = _codes(f, tracks)
    half = halves(f.carrying.sequence)
    shift = np.roll(np.arange(len(half)), len(half) // 2)
    curve = np.zeros((len(steps), len(tracks)))
    floor = np.zeros(len(steps))
    for k, checkpoint in enumerate(f.carrying.series):
        read = _Readout(checkpoint.activations, half)
        curve[k] = read.correlation(codes)
        null = read.correlation(sp.csc_array(codes.tocsr()[shift]))
        floor[k] = np.quantile(null, NULL_QUANTILE) if len(null) else 0.0
    rows = [(int(t), *_onset(curve[:, n], floor, steps)) for n, t in enumerate(tracks)]
    columns = list(zip(*rows, strict=True)) or [()] * 5
    types = {"track": pa.int64(), "step": pa.int64(), "low": pa.int64(), "high": pa.int64(), "censored": pa.string()}
    return pa.table({name: pa.array(c, t) for (name, t), c in zip(types.items(), columns, strict=True)})


def _codes(f: Followed, tracks: Int[np.ndarray, " tracks"]) -> sp.csc_array:
    """Of every track, what it writes where it fires most often: [rows, tracks]."""
    fires = [np.diff(c.codes.indptr) for c in f.carrying.series]
    best = [max(f.tracks.positions[t], key=lambda p: fires[p[0]][p[1]]) for t in tracks]
    order = sorted(range(len(best)), key=lambda n: best[n][0])
    columns: list[sp.csc_array] = [sp.csc_array((f.carrying.series[0].n_rows, 0), dtype=np.float32)]
    for n in order:
        place, position = best[n]
        columns.append(f.carrying.series[place].codes[:, [position]])
    stacked = sp.csc_array(sp.hstack(columns, format="csc"))
    return sp.csc_array(stacked[:, np.argsort(np.array(order, dtype=np.int64))])


class _Readout:
    """Closed-form linear readout from one half of the rows, scored on the other."""

    def __init__(self, x: Float[np.ndarray, "rows d_in"], half: Bool[np.ndarray, " rows"]) -> None:
        self._half = half
        self._train, self._test = x[half], x[~half]
        gram = self._train.T @ self._train
        gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram) + 1e-6
        self._factor = la.cho_factor(gram, lower=True, check_finite=False)

    def correlation(self, codes: sp.csc_array) -> Float[np.ndarray, " tracks"]:
        """Between the readout and the codes on the test half; 0 where a code never varies there."""
        parts = [self._of_chunk(chunk) for chunk in _chunks(codes)]
        return np.concatenate([np.zeros(0), *parts])

    def _of_chunk(self, codes: sp.csc_array) -> Float[np.ndarray, " tracks"]:
        rows = codes.tocsr()
        weights = la.cho_solve(self._factor, (rows[self._half].T @ self._train).T, check_finite=False)
        read, target = self._test @ weights, rows[~self._half].toarray()
        read -= read.mean(axis=0)
        target -= target.mean(axis=0)
        size = np.linalg.norm(read, axis=0) * np.linalg.norm(target, axis=0)
        return np.asarray(np.where(size > 1e-9, np.einsum("rt,rt->t", read, target) / np.maximum(size, 1e-9), 0.0))


def _chunks(codes: sp.csc_array) -> Iterator[sp.csc_array]:
    for start in range(0, codes.shape[1], CHUNK):
        yield sp.csc_array(codes[:, start : start + CHUNK])


def _onset(
    curve: Float[np.ndarray, " checkpoints"], floor: Float[np.ndarray, " checkpoints"], steps: list[int]
) -> tuple[int | None, int | None, int | None, str | None]:
    """First step carried, the last before it, itself again, and whether that is only a bound."""
    halfway = (curve.max() + floor.mean()) / 2
    carried = (curve > floor) & (curve >= halfway)
    twice = carried & np.append(carried[1:], True)
    if not twice.any():
        return None, steps[-1], None, "right"
    at = int(twice.argmax())
    if at == 0:
        return steps[0], None, steps[0], "left"
    return steps[at], steps[at - 1], steps[at], None
