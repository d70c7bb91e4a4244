"""A fresh start, towards what is badly reconstructed, for latents that have fallen silent.

Done before a warm start and not during it: a short training has no time to settle what is revived again and again. A
training from nothing has, in its first half.
An error's own direction would be a poor start. Of a feature that split, the latent of the whole explains a good part of
the rows of either half; what is missing there is the difference. So errors say *where* something is missing, and the
activations on those rows say what.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.sae.autoencoder import SparseAutoencoder

SILENT = 5e-4
"""A latent that fires on a smaller share of the rows is refreshed."""
TRIES = 4
"""Directions tried for each latent to refresh; the most telling are taken."""
SHARPENINGS = 3
"""Rounds in which a direction is turned towards what many errors share, and away from one row's noise."""
ALIKE = 0.9
"""Largest cosine of a new direction with another decoder row: halves of a feature that split are alike."""
TELLING = 1.7
"""Skewness above which errors along a direction speak of a missing feature: with none missing it was mostly 1.1 to 1.6,
on the demo's activations 2 to 40."""
SHORTEST = 1e-12
"""What is shorter has no direction that a computer can tell; the largest error is about 1."""
ROWS = 32768
"""Rows whose errors are looked at."""


def refreshed(
    sae: SparseAutoencoder, x: Float[Tensor, "rows d_in"], generator: torch.Generator
) -> tuple[SparseAutoencoder, int]:
    """The SAE with its silent latents pointing at what it reconstructs badly, and how many those are.

    All other latents stay as they are. Fewer than all silent ones are refreshed where fewer directions are new.

    Args:
        sae: the SAE before, in scaled units.
        x: activations of the checkpoint that it will be trained on, in scaled units.
        generator: the only source of randomness.
    """
    x = x[torch.randperm(len(x), generator=generator)[:ROWS]]
    codes = sae.encode_sparse(x)
    silent = np.flatnonzero(np.bincount(codes.indices, minlength=sae.n_latents) < SILENT * len(x))
    error = x - sae.decode(codes)
    if len(silent) == 0 or not float(error.square().sum()) > 1e-9 * x.numel():
        return sae, 0
    others = sae.W_dec[torch.from_numpy(np.setdiff1d(np.arange(sae.n_latents), silent))]
    found = missing_directions(x, error, others, len(silent), generator)
    return _replaced(sae, silent[: len(found)], found), len(found)


def missing_directions(
    x: Float[Tensor, "rows d_in"],
    error: Float[Tensor, "rows d_in"],
    known: Float[Tensor, "known d_in"],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, "found d_in"]:
    """At most ``count`` unit directions of what is badly reconstructed, unlike the known ones and each other.

    Errors are drawn by their square and sharpened, and taken in order of how skew all errors are along them: what fires
    on few rows, and strongly, is a feature rather than noise.
    """
    error = _amplified(error)
    missing = sharpened_directions(error, TRIES * count, generator)
    along = error @ missing.T
    pointing = along.relu().pow(3).T @ x
    order = _skewness(along).argsort(descending=True, stable=True)
    directions = normalize(pointing)[order[pointing.norm(dim=1)[order] > SHORTEST]]
    return directions[_unlike(directions, known)[:count]]


def telling_directions(
    error: Float[Tensor, "rows d_in"], count: int, generator: torch.Generator
) -> Float[Tensor, "found d_in"]:
    """At most ``count`` unit directions of errors along which these are so skew that a feature must be missing there.

    What is left where all features are known (noise, and features that were the weakest of a row) is hardly skew.
    """
    if not float(error.square().sum()) > 1e-9 * error.numel():
        return error[:0]
    error = _amplified(error)
    found = sharpened_directions(error, count, generator)
    return found[_skewness(error @ found.T) > TELLING]


def sharpened_directions(
    error: Float[Tensor, "rows d_in"], count: int, generator: torch.Generator
) -> Float[Tensor, "found d_in"]:
    """Unit directions of rows drawn by their squared error, each sharpened by the errors that point the same way.

    There are fewer where fewer rows are wrong.
    """
    error = _amplified(error)
    squares = error.square().sum(1)
    weights = squares * (squares > SHORTEST**1.5)
    drawn = torch.multinomial(weights, min(count, int(weights.count_nonzero())), generator=generator)
    found = normalize(error[drawn])
    for _ in range(SHARPENINGS):
        shared = (error @ found.T).relu_().square_().T @ error
        # A tiny error that no other points along with stays what it is: it has nothing to be sharpened by.
        found = torch.where(shared.norm(dim=1, keepdim=True) > SHORTEST, normalize(shared), found)
    return found


def _skewness(along: Float[Tensor, "rows directions"]) -> Float[Tensor, " directions"]:
    """Mean cube of what is positive, by the cube of the root mean square: 0.8 for noise, more for what is rare."""
    return along.relu().pow(3).mean(0) / along.square().mean(0).pow(1.5).clamp_min(1e-12)


def _amplified(error: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
    """Times a power of two, which rounds nothing: squares and cubes of small errors would be too small for a norm."""
    return torch.ldexp(error, -torch.frexp(error.abs().max()).exponent)


def _unlike(directions: Float[Tensor, "tries d_in"], known: Float[Tensor, "known d_in"]) -> Int[Tensor, " kept"]:
    """The directions that are like none of the known ones and like none kept before them."""
    new = (directions @ known.T).amax(1) <= ALIKE if len(known) else torch.ones(len(directions), dtype=torch.bool)
    alike = (directions @ directions.T > ALIKE).numpy()
    kept: list[int] = []
    for n in new.nonzero().flatten().tolist():
        if not alike[n, kept].any():
            kept.append(n)
    return torch.tensor(kept, dtype=torch.int64)


def _replaced(
    sae: SparseAutoencoder, latents: Int[np.ndarray, " found"], directions: Float[Tensor, "found d_in"]
) -> SparseAutoencoder:
    where = torch.from_numpy(latents)
    W_enc, b_enc, W_dec = sae.W_enc.clone(), sae.b_enc.clone(), sae.W_dec.clone()
    W_enc[:, where], b_enc[where], W_dec[where] = directions.T, 0.0, directions
    return replace(sae, W_enc=W_enc, b_enc=b_enc, W_dec=W_dec)
