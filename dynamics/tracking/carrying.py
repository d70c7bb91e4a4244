"""Carried directions between any two checkpoints of a series, made once and kept while they are near."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from dynamics.tracking.carried import Carried, Carrier
from dynamics.tracking.checkpoint import Series
from dynamics.tracking.procrustes import procrustes
from dynamics.tracking.similarity import PER_LATENT, Pairs, candidate_pairs

MEMORY = 5e8
"""Bytes of carried directions kept, beyond the two dozen newest; likewise of carriers and of pairs."""

V = TypeVar("V")


class Kept(dict[Hashable, V]):
    """The newest few results of something costly."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._order = size, OrderedDict[Hashable, None]()

    def get_or_make(self, key: Hashable, make: Callable[[], V]) -> V:
        if key not in self:
            self[key] = make()
            self._order[key] = None
            while len(self._order) > self._size:
                del self[self._order.popitem(last=False)[0]]
        self._order.move_to_end(key)
        return self[key]


class Carrying:
    """Pairs and carried directions of a series.

    Args:
        series: the checkpoints.
        sequence: which sequence each probe row belongs to; halves keep sequences whole.
    """

    def __init__(self, series: Series, sequence: Int[np.ndarray, " rows"]) -> None:
        self.series, self.sequence = series, sequence
        self._half = halves(sequence)
        sizes = [(c.n_live, c.decoder.nbytes, c.codes.nnz) for c in series] or [(0, 0, 0)]
        live, decoder, codes = (max(column) for column in zip(*sizes, strict=True))
        self._carriers: Kept[Carrier] = Kept(_number(12, 8 * live**2 + 16 * codes))
        self._carried: Kept[Carried] = Kept(_number(24, 2 * decoder))
        self._pairs: Kept[Pairs] = Kept(_number(48, 6 * 8 * 4 * PER_LATENT * live))
        widest = max((c.activations.shape[1] for c in series), default=0)
        self._rotations: Kept[Float[np.ndarray, "d_in d_in"]] = Kept(_number(64, 4 * widest**2))

    def carried(self, source: int, target: int) -> Carried:
        """Directions of the latents of checkpoint ``source`` in the activations of checkpoint ``target``."""
        return self._carried.get_or_make((source, target), lambda: self._carry(source, target))

    def pairs(self, earlier: int, later: int) -> Pairs:
        """Candidate pairs of two checkpoints, by position in the series."""
        return self._pairs.get_or_make(
            (earlier, later), lambda: candidate_pairs(self.series[earlier], self.series[later])
        )

    def rotation(self, source: int, target: int) -> Float[np.ndarray, "d_in d_in"]:
        """The orthogonal map of the whole space from ``source`` to ``target``."""
        if source > target:
            return self.rotation(target, source).T
        return self._rotations.get_or_make((source, target), lambda: self._procrustes(source, target))

    def _procrustes(self, source: int, target: int) -> Float[np.ndarray, "d_in d_in"]:
        return procrustes(self.series[source].activations, self.series[target].activations)[0]

    def _carry(self, source: int, target: int) -> Carried:
        carrier = self._carriers.get_or_make(source, lambda: Carrier(self.series[source], self._half))
        return carrier.to(self.series[target].activations)


def _number(least: int, size: int) -> int:
    """How many results of ``size`` bytes are kept."""
    return max(least, int(MEMORY / (size + 1)))


def halves(sequence: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """A fixed half of the sequences, drawn without regard to their order."""
    distinct, index = np.unique(sequence, return_inverse=True)
    drawn = np.random.default_rng(0).permutation(len(distinct)) % 2 == 0
    return np.asarray(drawn[index])
