"""A series with its tracks, read forwards or backwards: a death is a birth and a merge a split in reversed time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int

from dynamics.tracking.carried import Carried
from dynamics.tracking.carrying import Carrying, Kept
from dynamics.tracking.lineage import Tracks
from dynamics.tracking.linking import Scored, scored_pairs
from dynamics.tracking.similarity import BLOCK

DENSE = 0.2
"""Density above which a latent is compared with other dense ones: those follow what never changes, and noise."""
FEWEST = 5
"""Tracks that a median is taken over."""
BLUR = 0.15
"""Difference of two presences that a feature of perfect signal shows between checkpoints for reasons of its own."""


@dataclass(frozen=True)
class Kin:
    """Candidate pairs of two checkpoints: ``parent`` at the former, ``child`` at the latter, in reading order."""

    parent: Int[np.ndarray, " pairs"]
    child: Int[np.ndarray, " pairs"]
    kinship: Float[np.ndarray, " pairs"]
    """Cosine of where the child's inputs point at the former checkpoint with the parent's decoder direction."""
    inside_parent: Float[np.ndarray, " pairs"]
    """Share of the parent's rows on which the child fires."""
    inside_child: Float[np.ndarray, " pairs"]
    """Share of the child's rows on which the parent fires."""
    score: Float[np.ndarray, " pairs"]
    """The link score."""


@dataclass(frozen=True)
class Timeline:
    """Checkpoints by their place in reading order; every index below is such a place."""

    carrying: Carrying
    tracks: Tracks
    backwards: bool = False
    _medians: Kept[tuple[float, float]] = field(default_factory=lambda: Kept(4096), repr=False)

    def __len__(self) -> int:
        return len(self.carrying.series)

    def place(self, index: int) -> int:
        """Position in the series, or back from it."""
        return len(self) - 1 - index if self.backwards else index

    def flipped(self) -> Timeline:
        """The same, read the other way."""
        return Timeline(self.carrying, self.tracks, not self.backwards)

    def track_of(self, index: int) -> Int[np.ndarray, " live"]:
        """Track of every live latent of a checkpoint."""
        return self.tracks.of[self.place(index)]

    def carried(self, source: int, target: int) -> Carried:
        """Directions of the latents of ``source`` in the activations of ``target``."""
        return self.carrying.carried(self.place(source), self.place(target))

    def starts(self, index: int) -> Bool[np.ndarray, " live"]:
        """Which latents are the first of their track in reading order."""
        end = 1 if self.backwards else 0
        return np.asarray(self.tracks.ends[self.track_of(index), end] == self.place(index))

    def lasting_starts(self, index: int) -> Bool[np.ndarray, " live"]:
        """Which latents begin a track here that is seen at another checkpoint too."""
        first, last = self.tracks.ends[self.track_of(index)].T
        return np.asarray(self.starts(index) & (first < last))

    def beginning(self, track: int) -> tuple[int, int]:
        """Place and position at which a track is first seen in reading order."""
        at, position = self.tracks.last(track) if self.backwards else self.tracks.first(track)
        return self.place(at), position

    def position_at(self, index: int, other: int) -> Int[np.ndarray, " live"]:
        """Position at ``other`` of the track of every live latent of ``index``; -1 where it is not there."""
        if not 0 <= other < len(self):
            return np.full(len(self.track_of(index)), -1)
        where = np.full(len(self.tracks), -1)
        where[self.track_of(other)] = np.arange(len(self.track_of(other)))
        return np.asarray(where[self.track_of(index)])

    def presence(self, source: int, target: int) -> Float[np.ndarray, " live"]:
        """How much the model at ``target`` writes for the inputs of each latent of ``source``, its own place being 1.

        √(⟨w¹, w²⟩ at target / ⟨w¹, w²⟩ at source) over the median of the tracks that are live at both: 1 where the
        feature is carried as those are, 0 where nothing is. 0 where the latent's own direction is lost in noise.
        """
        if source == target:
            return np.ones(len(self.track_of(source)))
        raw = self._raw_presence(source, target)
        raw = raw * self._aligned(source, target)
        usual = self._medians.get_or_make((source, target), lambda: self._usual(source, target, raw))
        return np.asarray(np.clip(raw / np.where(self.dense(source), usual[1], usual[0]), 0, 2))

    def mutual_presence(
        self, former: int, latter: int, i: Int[np.ndarray, " tracks"], j: Int[np.ndarray, " tracks"]
    ) -> Float[np.ndarray, " tracks"]:
        """Of tracks at positions ``i`` and ``j`` the lesser of their presences at the other place."""
        return np.asarray(np.minimum(self.presence(former, latter)[i], self.presence(latter, former)[j]))

    def _aligned(self, source: int, target: int) -> Float[np.ndarray, " live"]:
        """How far what the model writes at ``target`` is one direction: the feature's own, or some latent's there.

        An SAE that must choose its k strongest latents lets a newborn feature silence others; what those wrote before
        is no trace of the newborn. Only tracks that begin, end or pause nearby are looked at; 1 for the others.
        """
        here = self.place(source)
        near = np.any([self.position_at(source, source + n) < 0 for n in (-2, -1, 1, 2)], axis=0)
        rows, factor = np.flatnonzero(near), np.ones(len(near))
        own, there = self.carried(source, source), self.carried(source, target)
        turned = own.mean[rows] @ self.carrying.rotation(here, self.place(target))
        size = there.norm[rows]
        same = np.einsum("id,id->i", turned, there.mean[rows]) / (np.linalg.norm(turned, axis=1) * size + 1e-12)
        decoder = self.carrying.series[self.place(target)].decoder
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            nearest = (there.mean[rows[block]] @ decoder.T).max(axis=1, initial=0.0) / size[block]
            factor[rows[block]] = np.clip(np.maximum(same[block], nearest), 0, 1)
        return factor

    def blur(self, index: int) -> Float[np.ndarray, " live"]:
        """What a difference of presences or cosines of each latent must be measured in: larger for rarer ones."""
        return np.asarray(BLUR + self.carried(index, index).uncertainty)

    def _raw_presence(self, source: int, target: int) -> Float[np.ndarray, " live"]:
        own = self.carried(source, source).squared_norm
        there = self.carried(source, target).squared_norm
        return np.asarray(np.sqrt(np.maximum(there, 0) / np.where(own > 0, own, np.inf)))

    def _usual(self, source: int, target: int, raw: Float[np.ndarray, " live"]) -> tuple[float, float]:
        """Median raw presence of the tracks that go on: of the sparse latents and of the dense ones."""
        going_on, dense = self.position_at(source, target) >= 0, self.dense(source)
        sparse = _median(raw[going_on & ~dense], 1.0)
        return sparse, _median(raw[going_on & dense], sparse)

    def dense(self, index: int) -> Bool[np.ndarray, " live"]:
        """Which latents fire on so many rows that they follow what is always there rather than a feature."""
        checkpoint = self.carrying.series[self.place(index)]
        return np.asarray(np.diff(checkpoint.codes.indptr) > DENSE * checkpoint.n_rows)

    def kin(self, former: int, latter: int) -> Kin:
        """Candidate pairs of two checkpoints, former before latter in reading order."""
        scored = self._scored(former, latter)
        pairs = scored.pairs
        if self.backwards:
            return Kin(pairs.j, pairs.i, scored.ahead, pairs.inside_j, pairs.inside_i, scored.score)
        return Kin(pairs.i, pairs.j, scored.back, pairs.inside_i, pairs.inside_j, scored.score)

    def _scored(self, former: int, latter: int) -> Scored:
        earlier, later = sorted((self.place(former), self.place(latter)))
        return scored_pairs(self.carrying, earlier, later)


def _median(values: Float[np.ndarray, " n"], otherwise: float) -> float:
    return float(np.clip(np.median(values), 0.05, None)) if len(values) >= FEWEST else otherwise


def window(index: int, before: int, after: int, length: int) -> Iterable[int]:
    """Places around ``index`` that exist."""
    return range(max(0, index - before), min(length, index + after + 1))
