"""What the tracking stage sees of one checkpoint, and of a series of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Checkpoint:
    """One site at one step, in scaled units (mean 0, mean squared norm d_in).

    Only live latents are here: those that fire on enough probe rows to say anything about them. Positions in these
    arrays are *not* latent indices; ``latents`` maps back.
    """

    step: int
    activations: Float[np.ndarray, "rows d_in"]
    codes: sp.csc_array
    """float32 [rows, live]: what each live latent writes on each row."""
    decoder: Float[np.ndarray, "live d_in"]
    """Unit rows."""
    latents: Int[np.ndarray, " live"]
    scale: float
    """What raw activations were multiplied with."""

    @property
    def n_live(self) -> int:
        return len(self.latents)

    @property
    def n_rows(self) -> int:
        return int(self.activations.shape[0])

    @property
    def n_bytes(self) -> int:
        """Memory that the arrays take."""
        return int(self.activations.nbytes + self.codes.data.nbytes + self.codes.indices.nbytes)


def fewest_rows(n_rows: int) -> int:
    """Rows a latent must fire on to be tracked: 1 in 2,000, at least 3, at most 10."""
    return int(min(10, max(3, n_rows // 2000)))


def live_checkpoint(
    step: int,
    activations: Float[np.ndarray, "rows d_in"],
    codes: sp.csr_array,
    decoder: Float[np.ndarray, "latents d_in"],
    scale: float,
) -> Checkpoint:
    """The checkpoint of an SAE's codes ``[rows, latents]``, its live latents only."""
    codes = codes.copy()
    codes.eliminate_zeros()
    fires = np.bincount(codes.indices, minlength=codes.shape[1])
    live = np.flatnonzero(fires >= fewest_rows(codes.shape[0]))
    kept = sp.csc_array(codes.tocsc()[:, live], dtype=np.float32)
    return Checkpoint(step, activations, kept, np.ascontiguousarray(decoder[live]), live.astype(np.int64), scale)


class Series:
    """Consecutive checkpoints of one arm, loaded when asked for and kept while they are near.

    Args:
        steps: the optimiser steps, ascending.
        load: makes the checkpoint at a position.
        memory: bytes of checkpoints that are kept, beyond the four nearest.
    """

    def __init__(self, steps: Sequence[int], load: Callable[[int], Checkpoint], memory: float = 1.5e9) -> None:
        self.steps = list(steps)
        self._load, self._memory = load, memory
        self._held: OrderedDict[int, Checkpoint] = OrderedDict()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Checkpoint:
        if index not in self._held:
            self._held[index] = self._load(index)
            while len(self._held) > 4 and sum(c.n_bytes for c in self._held.values()) > self._memory:
                self._held.popitem(last=False)
        self._held.move_to_end(index)
        return self._held[index]

    def __iter__(self) -> Iterator[Checkpoint]:
        return (self[i] for i in range(len(self)))
