"""Surrogate snapshots: what a site would look like, had nothing happened to its features.

Every feature that goes on in reality, before or after, goes on by construction; noise, jitter, the turn of the whole
space and the growth of the activations are as measured between the real checkpoints. What other latents write is taken
for noise: half of the live latents of a large dictionary fire on nothing that lasts, and they must come and go here as
they do in reality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.change import (
    Change,
    lasting_share,
    measure_change,
    mixed,
    residual_kept,
)
from dynamics.sae.continuations import Seen, sure_continuations
from dynamics.sae.scaling import Scaling
from dynamics.sae.threads import one_thread
from dynamics.tracking.carried import Carrier
from dynamics.tracking.carrying import halves

DISTINCT = 0.2
"""Relative noise of a carried direction up to which a latent is more than noise."""
LASTING = 0.2
"""Code correlation of mutual best candidates from which a latent is a feature that goes on, not noise."""
LAG = 3
"""Checkpoints over which it is seen how much of the residual stays for ever."""
TRIES = 4
"""Rounds of drawing rows for codes that move, each for those whose row was taken."""


def null_activations(
    saes: Sequence[SparseAutoencoder],
    snapshots: Sequence[Float[Tensor, "rows d_in"]],
    sequence: Int[np.ndarray, " rows"],
    generator: torch.Generator,
    before: tuple[SparseAutoencoder, Float[Tensor, "rows d_in"]] | None = None,
) -> list[Float[Tensor, "rows d_in"]]:
    """Surrogates of the second snapshot and of those after it, each made of the surrogate before, in raw units.

    Depends on its arguments alone, so they can be made anew instead of stored. Works on one CPU thread: a sum that came
    out different in its last digit would shift every random number after it.

    Args:
        saes: the chain's SAE of each snapshot, in raw units.
        snapshots: raw activations of the same rows at consecutive checkpoints.
        sequence: the sequence that each row belongs to; residuals are exchanged between sequences.
        generator: the only source of randomness.
        before: the chain's SAE and the snapshot of the checkpoint before the first, if there is one: a feature that
            dies after the first is known by it.

    Raises:
        ValueError: if a snapshot does not vary at all.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    with one_thread():
        seen = [_seen(sae, x) for sae, x in zip(saes, snapshots, strict=True)]
        standing = lasting(seen[0], seen[1], None if before is None else _seen(*before), sequence)
        made = _surrogates(seen, standing, sequence, rng)
        return [Scaling.of(x).undo(y) for x, y in zip(snapshots[1:], made, strict=True)]


def _seen(sae: SparseAutoencoder, x: Float[Tensor, "rows d_in"]) -> Seen:
    scaling = Scaling.of(x)
    return Seen(scaling.apply(x), sae.to_scaled(scaling.mean, scaling.scale))


def lasting(
    here: Seen, later: Seen, earlier: Seen | None, sequence: Int[np.ndarray, " rows"]
) -> Bool[np.ndarray, " latents"]:
    """Which latents are the same feature at the next checkpoint or at the one before, as far as one can see.

    Where noise is strong a feature's codes correlate by little more than half: to take it for noise here would make it
    die, in a null in which nothing may.
    """
    sure, likely = (np.zeros(here.sae.n_latents, dtype=bool) for _ in range(2))
    for marks, limits in ((sure, ()), (likely, (LASTING, 0.0))):
        marks[sure_continuations(here, later, *limits)[0]] = True
        if earlier is not None:
            marks[sure_continuations(earlier, here, *limits)[1]] = True
    return np.asarray(sure | (likely & _distinct(here, sequence)))


def _distinct(here: Seen, sequence: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " latents"]:
    """Which latents write a direction that two halves of the rows agree on; noise that an SAE fits to has none."""
    checkpoint = here.checkpoint
    own = Carrier(checkpoint, halves(sequence)).to(checkpoint.activations)
    distinct = np.zeros(here.sae.n_latents, dtype=bool)
    distinct[checkpoint.latents] = own.uncertainty <= DISTINCT
    return distinct


def _surrogates(
    seen: list[Seen],
    standing: Bool[np.ndarray, " latents"],
    sequence: Int[np.ndarray, " rows"],
    rng: np.random.Generator,
) -> Iterator[Float[Tensor, "rows d_in"]]:
    share = _lasting_share(seen)
    last = Surrogate.start(seen[0], standing, share, donors(sequence, rng))
    for earlier, later in pairwise(seen):
        change = measure_change(earlier, later, donors(sequence, rng))
        last = last.next(change, donors(sequence, rng), rng)
        yield last.seen.x


def _lasting_share(seen: list[Seen]) -> float:
    """Of the residual, by the first checkpoints alone: a null chain that grows goes on from what it was."""
    lag = min(LAG, len(seen) - 1)
    if lag < 2:
        return 0.0
    near = float(np.mean([residual_kept(a, b) for a, b in pairwise(seen[: lag + 1])]))
    return lasting_share(near, residual_kept(seen[0], seen[lag]), lag)


@dataclass(frozen=True)
class Surrogate:
    """A surrogate in scaled units, and what the next one is made of.

    It comes with the SAE of the start, turned with the space: what that sees here is what the next one is made of, so
    that the codes of every surrogate are as noisy as those of the first.
    """

    seen: Seen
    standing: Bool[np.ndarray, " latents"]
    """The latents whose features go on; what the others write belongs to the residual."""
    share: float
    """Of the residual's variance that stays for ever."""
    fixed: Float[Tensor, "rows d_in"]
    """That part."""

    @classmethod
    def start(
        cls, seen: Seen, standing: Bool[np.ndarray, " latents"], share: float, donors: Int[np.ndarray, " rows"]
    ) -> Surrogate:
        """The real checkpoint that the others come from; what of its residual stays is not known, only how much."""
        residual = _residual(seen, _features(seen, standing))
        fixed = share * residual + math.sqrt(share * (1 - share)) * residual[torch.from_numpy(donors)]
        return cls(seen, standing, share, fixed)

    def next(self, change: Change, donors: Int[np.ndarray, " rows"], rng: np.random.Generator) -> Surrogate:
        """The one after: codes jittered, residuals exchanged, the space turned, as much as measured.

        Args:
            change: what happens to features that go on.
            donors: for each row the one that gives its residual, but for what stays for ever.
            rng: the only source of randomness.
        """
        seen, features = self.seen, _features(self.seen, self.standing)
        passing = _residual(seen, features) - self.fixed
        kept = max(0.0, 1 - (1 - change.residual_kept) / max(1 - self.share, 1e-6))
        codes = sp.csr_array(jittered(features, change, rng))
        noise = self.fixed + mixed(passing, passing[torch.from_numpy(donors)], kept)
        x = (seen.sae.decode(codes) + noise) @ change.turn
        scaling = Scaling.of(x)
        made = Seen(scaling.apply(x), _turned(seen.sae, change.turn))
        return replace(self, seen=made, fixed=self.fixed @ change.turn * scaling.scale)


def _features(seen: Seen, standing: Bool[np.ndarray, " latents"]) -> sp.csc_array:
    """The codes of the latents whose features go on."""
    features = sp.csc_array(seen.codes @ sp.diags_array(standing.astype(np.float32)))
    features.eliminate_zeros()
    return features


def _residual(seen: Seen, features: sp.csc_array) -> Float[Tensor, "rows d_in"]:
    return seen.x - seen.sae.decode(sp.csr_array(features))


def _turned(sae: SparseAutoencoder, turn: Float[Tensor, "d_in d_in"]) -> SparseAutoencoder:
    return replace(sae, W_enc=turn.T @ sae.W_enc, W_dec=sae.W_dec @ turn, b_dec=sae.b_dec @ turn)


def jittered(codes: sp.csc_array, change: Change, rng: np.random.Generator) -> sp.csc_array:
    """Codes ``[rows, latents]`` some of which move to other rows; those that stay change in size.

    A latent's number of firing rows and the distribution of its codes stay as they are: the logarithms follow
    a stationary autoregression, so that jitter does not pile up from surrogate to surrogate.
    """
    rows, n = codes.shape
    fires = np.diff(codes.indptr)
    column = np.repeat(np.arange(n), fires)
    stays = rng.random(codes.nnz) < change.kept_at(codes.data)
    where = codes.indices.astype(np.int64)
    moved = _other_rows(column[~stays], column * rows + where, rows, rng)
    where[~stays] = np.where(moved >= 0, moved, where[~stays])
    values = np.where(stays, _resized(codes, column, change.spread_at(fires / rows), rng), codes.data).astype(
        np.float32
    )
    return sp.csc_array((values, (where, column)), shape=codes.shape)


def _other_rows(
    column: Int[np.ndarray, " moves"], taken: Int[np.ndarray, " codes"], rows: int, rng: np.random.Generator
) -> Int[np.ndarray, " moves"]:
    """For each moving code a row where its latent does not fire; -1 where a few tries find none.

    Args:
        column: the latent of each.
        taken: latent · rows + row of every code.
    """
    chosen = np.full(len(column), -1)
    for _ in range(TRIES):
        open_ = np.flatnonzero(chosen < 0)
        row = rng.integers(rows, size=len(open_))
        keys, first = np.unique(column[open_] * rows + row, return_index=True)
        fresh = first[~np.isin(keys, taken, assume_unique=True)]
        chosen[open_[fresh]] = row[fresh]
        taken = np.concatenate([taken, column[open_[fresh]] * rows + row[fresh]])
    return chosen


def _resized(
    codes: sp.csc_array,
    column: Int[np.ndarray, " codes"],
    spread: Float[np.ndarray, " latents"],
    rng: np.random.Generator,
) -> Float[np.ndarray, " codes"]:
    logs, count = np.log(codes.data.astype(np.float64)), np.maximum(np.diff(codes.indptr), 1)
    mean = np.bincount(column, logs, len(count)) / count
    variance = np.bincount(column, (logs - mean[column]) ** 2, len(count)) / count
    # Var(log z' − log z) = 2 (1 − memory) Var(log z) in a stationary autoregression.
    memory = np.clip(1 - spread**2 / np.maximum(2 * variance, 1e-12), 0, 1)
    fresh = np.sqrt((1 - memory**2) * variance)[column] * rng.standard_normal(len(logs))
    return np.asarray(np.exp(mean[column] + memory[column] * (logs - mean[column]) + fresh))


def donors(sequence: Int[np.ndarray, " rows"], rng: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """For each row one at the same position of another sequence, each sequence giving to one other.

    Where the giving sequence is shorter it is gone through again; a lone sequence is shifted against itself.
    """
    order = np.argsort(sequence, kind="stable")
    _, starts, lengths = np.unique(sequence[order], return_index=True, return_counts=True)
    index = np.repeat(np.arange(len(starts)), lengths)
    position = np.arange(len(order)) - starts[index]
    if len(starts) == 1:
        position = position + rng.integers(1, max(2, len(order)))
    circle = rng.permutation(len(starts))
    giver = np.empty_like(circle)
    giver[circle] = np.roll(circle, 1)
    given = np.empty(len(order), dtype=np.int64)
    given[order] = order[starts[giver[index]] + position % lengths[giver[index]]]
    return given
