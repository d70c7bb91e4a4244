"""What comparing two checkpoints costs, on a pair whose continuations are known.

    OMP_NUM_THREADS=1 python -m studies.benchmarks.tracking [--latents 16384] [--d 512] [--rows 262144] [--firing 32]
        [--threads 2] [--claimed 64] [--hungarian 4096]

The pair: the latents of the later checkpoint are those of the earlier one in another order, their directions jittered,
their codes jittered, a tenth of their rows exchanged; one in twenty is new instead. Prints

- the time and peak memory of candidates with their co-activations, of decoys (one block of latents against the later
  checkpoint with its rows in another order) and of one-to-one links, the share of right links, and of found ones. Links
  are scored by correlation alone: carried directions of every latent are out of reach at this size;
- carried directions of a few latents, those that a claim would be about, timed apart;
- the floor: the matrix product of the decoders, which every exact nearest-neighbour search by cosine must do;
- the dense way: a cosine for every pair and an optimal assignment, at a size of its own.

Matrix products are held to one thread; the library's blocks of latents run on as many as asked for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

from dynamics.tracking import Checkpoint, live_checkpoint
from dynamics.tracking.carried import RIDGE, _conjugate_gradients
from dynamics.tracking.linking import Links, Scored, best_by, link
from dynamics.tracking.similarity import BLOCK, Pairs, candidate_pairs

NEW, EXCHANGED, JITTER, TURNED = 0.05, 0.1, 0.3, 0.5
"""Share of new latents, of exchanged rows; deviation of the logarithm of codes; length added across a direction."""
Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """Two checkpoints, and which later latent each earlier one is; -1 where it ended."""

    earlier: Checkpoint
    later: Checkpoint
    continuation: NDArray[np.int64]


def planted_pair(latents: int, d: int, rows: int, firing: int) -> Pair:
    """The pair that is compared. Activations are not made; :func:`activations` does, where they are needed."""
    rng = np.random.default_rng(0)
    active, gone = _drawn(rng, latents, (rows, firing)), rng.random(latents) < NEW
    exchanged = (rng.random(active.shape, dtype=np.float32) < EXCHANGED) | gone[active]
    later_active = np.where(exchanged, _drawn(rng, latents, active.shape), active)
    codes = rng.random(active.shape, dtype=np.float32) + 0.5
    later_codes = codes * np.exp(JITTER * rng.standard_normal(codes.shape, dtype=np.float32))
    directions = _unit(rng, latents, d)
    aside = np.where(gone[:, None], 100, TURNED).astype(np.float32) * _unit(rng, latents, d)
    order = rng.permutation(latents)
    place = np.argsort(order)
    turned = directions + aside
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    earlier = _checkpoint(active, codes, directions)
    later = _checkpoint(place[later_active].astype(np.int32), later_codes, turned[order])
    return Pair(earlier, later, _known(earlier, later, np.where(gone, -1, place)))


def _drawn(rng: np.random.Generator, latents: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Latents at random, the first the most often: density goes as rank^-1/2."""
    return np.asarray(latents * rng.random(shape, dtype=np.float32) ** 2, dtype=np.int32).clip(max=latents - 1)


def _unit(rng: np.random.Generator, latents: int, d: int) -> Floats:
    directions = rng.standard_normal((latents, d), dtype=np.float32)
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True))


def _checkpoint(active: NDArray[np.int32], codes: Floats, directions: Floats) -> Checkpoint:
    rows, firing = active.shape
    indptr = np.arange(0, active.size + 1, firing, dtype=np.int32)
    matrix = sp.csr_array((codes.ravel(), active.ravel(), indptr), shape=(rows, len(directions)))
    matrix.sum_duplicates()
    not_made = np.broadcast_to(np.float32(0), (rows, directions.shape[1]))
    return live_checkpoint(0, not_made, matrix, directions, 1.0)


def _known(earlier: Checkpoint, later: Checkpoint, place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions among the live latents."""
    position = np.full(place.max() + 2, -1)
    position[later.latents] = np.arange(later.n_live)
    continued = place[earlier.latents]
    return np.asarray(np.where(continued < 0, -1, position[continued]))


def activations(checkpoint: Checkpoint, noise: float = 1.0) -> Floats:
    """What the codes write, and noise of this norm."""
    rows, d = checkpoint.n_rows, checkpoint.decoder.shape[1]
    written = np.asarray(checkpoint.codes.tocsr() @ checkpoint.decoder, dtype=np.float32)
    rng = np.random.default_rng(1)
    for start in range(0, rows, 4096):
        part = written[start : start + 4096]
        part += noise / np.sqrt(d) * rng.standard_normal(part.shape, dtype=np.float32)
    return written


# --- what is measured -----------------------------------------------------------------------------------------


def linked(pair: Pair, pairs: Pairs, decoys: NDArray[np.float64]) -> Links:
    """One-to-one links by correlation."""
    sizes = pair.earlier.n_live, pair.later.n_live
    return link(_by_correlation(pairs), decoys, sizes, float(np.quantile(decoys, 0.99)))


def decoys(pair: Pair, threads: int) -> NDArray[np.float64]:
    """Best scores of one block of latents, drawn at random, with the later checkpoint on other rows."""
    rng = np.random.default_rng(2)
    some = np.sort(rng.permutation(pair.earlier.n_live)[:BLOCK])
    few, whole = pair.earlier, pair.later
    few = Checkpoint(0, few.activations, few.codes[:, some], few.decoder[some], few.latents[some], 1.0)
    shuffled = sp.csc_array(whole.codes.tocsr()[rng.permutation(whole.n_rows)])
    whole = Checkpoint(0, whole.activations, shuffled, whole.decoder, whole.latents, 1.0)
    scored = _by_correlation(candidate_pairs(few, whole, threads))
    return best_by(scored.pairs.i, scored.score, few.n_live)


def _by_correlation(pairs: Pairs) -> Scored:
    """The link score without carried directions: its other factor is 1."""
    return Scored(pairs, np.ones(len(pairs)), np.ones(len(pairs)))


def carried(codes: sp.csc_array, x: Floats, claimed: NDArray[np.int64]) -> Floats:
    """Carried directions of a few latents: the ridge regression on all codes, solved for their rows alone.

    Rows ``claimed`` of (ZᵀZ + λI)⁻¹ ZᵀX are (Z A)ᵀ X with (ZᵀZ + λI) A = E, the unit vectors of the claimed latents.
    """
    norms = np.sqrt(np.asarray(codes.multiply(codes).sum(axis=0)).ravel())
    scaled = sp.csr_array(codes @ sp.diags_array((1 / norms).astype(np.float32)))
    transposed, total = sp.csr_array(scaled.T), np.asarray(scaled.sum(axis=0)).ravel()
    mean = np.float32(1 / scaled.shape[0])
    unit = np.zeros((codes.shape[1], len(claimed)), np.float32)
    unit[claimed, np.arange(len(claimed))] = 1

    def gram(a: Floats) -> Floats:
        return np.asarray(transposed @ (scaled @ a) - mean * np.outer(total, total @ a))

    solved = _conjugate_gradients(gram, unit)
    weights = scaled @ solved - mean * (total @ solved)
    return np.asarray(weights.T @ x)


def right_links(pair: Pair, links: Links) -> tuple[float, float]:
    """Share of the links that are right, and of the continuations that were found."""
    right = np.sum(pair.continuation[links.i] == links.j)
    return right / max(1, len(links)), right / max(1, int(np.sum(pair.continuation >= 0)))


def floor(pair: Pair, threads: int) -> None:
    """The product of the decoders, by blocks as the library does it."""
    keys = pair.later.decoder.T

    def product(start: int) -> float:
        return float((pair.earlier.decoder[start : start + BLOCK] @ keys)[0, 0])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(product, range(0, pair.earlier.n_live, BLOCK)))


def hungarian(size: int, d: int) -> None:
    """Cosines of all pairs and the assignment that is best in all."""
    rng = np.random.default_rng(0)
    directions = _unit(rng, size, d)
    turned = directions[rng.permutation(size)] + TURNED * _unit(rng, size, d)
    linear_sum_assignment(directions @ turned.T, maximize=True)


class Meter:
    """Prints the time of each part and how much memory it took beyond what was there before."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, name: str, part: Callable[[], T], *, counted: bool = True) -> T:
        before = _reset_peak()
        begun = time.perf_counter()
        made = part()
        seconds = time.perf_counter() - begun
        self.total += seconds if counted else 0
        print(f"{name:58}{seconds:8.2f} s{(_memory('VmHWM') - before) / 1e6:8.2f} GB", flush=True)
        return made


def _reset_peak() -> int:
    """Kilobytes in use; the peak is measured from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    """A figure of this process in kilobytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Measures and prints; returns what a test looks at."""
    options = _options().parse_args(arguments)
    with threadpool_limits(1):
        meter = Meter()
        size = options.latents, options.d, options.rows, options.firing
        print(f"{size[0]} latents, d {size[1]}, {size[2]} rows with {size[3]} firing, {options.threads} threads")
        pair = meter("the two checkpoints (not counted)", lambda: planted_pair(*size), counted=False)
        pairs = meter(
            "candidates and co-activations", lambda: candidate_pairs(pair.earlier, pair.later, options.threads)
        )
        noise = meter("decoys, from one block of latents", lambda: decoys(pair, options.threads))
        links = meter("links", lambda: linked(pair, pairs, noise))
        precision, recall = right_links(pair, links)
        print(f"{'in all':58}{meter.total:8.2f} s")
        print(f"{len(pairs)} candidates, {len(links)} links: {precision:.4f} right, {recall:.4f} found")
        meter("floor: the product of the decoders", lambda: floor(pair, options.threads), counted=False)
        if options.hungarian:
            name = f"dense: all cosines and an assignment, {options.hungarian} latents"
            meter(name, lambda: hungarian(options.hungarian, options.d), counted=False)
        if options.claimed:
            _measure_carried(meter, pair, options.claimed)
    return {"seconds": meter.total, "precision": precision, "recall": recall}


def _measure_carried(meter: Meter, pair: Pair, count: int) -> None:
    x = meter("activations of the later checkpoint (not counted)", lambda: activations(pair.later), counted=False)
    claimed = np.flatnonzero(pair.continuation >= 0)[:: max(1, pair.earlier.n_live // count)][:count]
    name = f"carried directions of {len(claimed)} latents, ridge {RIDGE}"
    found = meter(name, lambda: carried(pair.earlier.codes, x, claimed), counted=False)
    truth = pair.later.decoder[pair.continuation[claimed]]
    cosine = np.einsum("id,id->i", found, truth) / np.linalg.norm(found, axis=1)
    print(f"their cosine with the direction of their continuation: median {np.median(cosine):.3f}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes: dict[str, Any] = {"latents": 16384, "d": 512, "rows": 262144, "firing": 32, "threads": 2, "claimed": 64}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--hungarian", type=int, default=4096, help="latents of the dense way (default 4096; 0: none)")
    return parser


if __name__ == "__main__":
    main()
