"""The same history in other clothes: what a tracker says of it should not change."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from studies.planted.dictionary import Dictionary
from studies.planted.truth import Event, Truth
from studies.planted.worlds import World


@dataclass(frozen=True)
class Clothes:
    """What is done to the activations of all checkpoints alike."""

    factor: float = 1.0
    """Multiplies them."""
    rotated: bool = False
    """They are rotated by one random orthogonal matrix."""
    permuted: bool = False
    """The sequences come in another order, and the rows of a sequence too."""
    dtype: torch.dtype = torch.float32
    """What they are rounded to."""
    missing: int | None = None
    """Index of a checkpoint that is left out."""


CLOTHES = {
    "plain": Clothes(),
    "times 1000": Clothes(factor=1e3),
    "over 1000": Clothes(factor=1e-3),
    "rotated": Clothes(rotated=True),
    "permuted": Clothes(permuted=True),
    "float16": Clothes(dtype=torch.float16),
    "bfloat16": Clothes(dtype=torch.bfloat16),
    "one missing": Clothes(missing=5),
}


def clothes(name: str) -> Clothes:
    """The clothes of this name.

    Raises:
        ValueError: if there are none, naming the nearest.
    """
    if name not in CLOTHES:
        near = difflib.get_close_matches(name, CLOTHES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no clothes {name!r}{hint} There are: {', '.join(CLOTHES)}")
    return CLOTHES[name]


class DressedWorld(World):
    """A world in other clothes; used like any world."""

    def __init__(self, world: World, worn: Clothes) -> None:
        super().__init__(world.config, world.seed)
        self.worn = worn
        self.kept = [i for i in range(world.config.checkpoints) if i != worn.missing]
        self.steps = [world.steps[i] for i in self.kept]
        self.world = world

    @cached_property
    def truth(self) -> Truth:
        """The truth, with what happened at a checkpoint left out dated at the next one."""
        true = self.world.truth
        if self.worn.missing is None:
            return true
        return Truth(
            tuple(self.steps),
            tuple(replace(f, alive=tuple(f.alive[i] for i in self.kept)) for f in true.features),
            tuple(event for e in true.events if (event := self._seen(e)) is not None),
            tuple(
                replace(t, checkpoint=at, from_step=self.steps[at - 1], to_step=self.steps[at])
                for t in true.transitions
                for at in [self._at(t.checkpoint)]
            ),
        )

    def activations(self, i: int) -> NDArray[np.float32]:
        """The activations at checkpoint i, rounded as they are written."""
        x = self.world.activations(self.kept[i]) * np.float32(self.worn.factor)
        if self.worn.rotated:
            x = x @ self._rotation.astype(np.float32)
        return np.asarray(torch.from_numpy(x[self._order]).to(self.worn.dtype).float().numpy())

    def oracle(self, i: int) -> Dictionary:
        """The perfect dictionary at checkpoint i."""
        found = self.world.oracle(self.kept[i])
        directions = found.directions @ self._rotation if self.worn.rotated else found.directions
        codes = sp.csc_array(sp.csr_array(found.codes)[self._order] * self.worn.factor)
        return replace(found, directions=directions, codes=codes)

    def _save(self, path: Path, i: int) -> None:
        save_file({"activations": torch.from_numpy(self.activations(i)).to(self.worn.dtype)}, path)

    def _seen(self, event: Event) -> Event | None:
        """The event in the checkpoints that are left; None for a gap of which nothing is left."""
        at, until = self._at(event.checkpoint), None if event.until is None else self._at(event.until)
        return None if at == until else replace(event, checkpoint=at, until=until)

    def _at(self, checkpoint: int) -> int:
        """Index among the kept checkpoints of the first that is not before this one."""
        return next((k for k, i in enumerate(self.kept) if i >= checkpoint), len(self.kept) - 1)

    @cached_property
    def _rotation(self) -> NDArray[np.float64]:
        rng = np.random.default_rng([self.seed, 103])
        return np.asarray(np.linalg.qr(rng.standard_normal((self.config.d, self.config.d)))[0])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        rows = np.arange(self.config.rows)
        if not self.worn.permuted:
            return rows
        rng = np.random.default_rng([self.seed, 104])
        place = rng.permutation(self.sequences.max() + 1)[self.sequences]
        return np.lexsort((rng.random(len(rows)), place))
