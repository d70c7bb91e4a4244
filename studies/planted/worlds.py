"""Worlds whose history is known: activations, oracle dictionaries and truth, one checkpoint at a time from a seed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from safetensors.numpy import save_file

from studies.planted.config import WorldConfig
from studies.planted.dictionary import Dictionary, dictionary
from studies.planted.oracle import write_sae
from studies.planted.plan import Plan, make_plan, unit
from studies.planted.supports import Supports
from studies.planted.truth import Transition, Truth

PLAN, SUPPORTS, NOISE, BACKGROUND, SPACE, STEPS = range(6)  # one random stream for each


class World:
    """A generated history.

    ``activations(i)``, ``oracle(i)``, ``directions(i)`` and ``codes(i)`` take the index of a checkpoint and make its
    arrays anew from the seed, so a world takes little memory and two calls give the same numbers.
    """

    def __init__(self, config: WorldConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.plan: Plan = make_plan(config, self._rng(PLAN))
        self.steps: list[int] = self._steps()

    @cached_property
    def truth(self) -> Truth:
        """What happens in this world."""
        windows = tuple(Transition(at, self.steps[at - 1], self.steps[at]) for at in self.plan.transitions)
        return Truth(tuple(self.steps), tuple(self.plan.features), tuple(self.plan.events), windows)

    @property
    def sequences(self) -> NDArray[np.int64]:
        """The sequence that each row belongs to."""
        return np.arange(self.config.rows) // self.config.sequence

    def activations(self, i: int) -> NDArray[np.float32]:
        """The activations at checkpoint i: [rows, d]."""
        atoms = np.stack([atom.direction[i] for atom in self.plan.atoms])
        x = self._supports.codes(i).astype(np.float32) @ atoms.astype(np.float32)
        x = x + self._noise(i) + self._background(i)
        return np.asarray((x @ self._turns[i].T if self.config.turn else x) * self.scale(i), dtype=np.float32)

    def oracle(self, i: int) -> Dictionary:
        """The dictionary that a perfect SAE would have at checkpoint i, in raw units and axes.

        It has the artefacts (absorption, duplicates) that were planned for it.
        """
        found = dictionary(self.plan, i, self._supports.codes(i), self.seed)
        directions = found.directions @ self._turns[i].T if self.config.turn else found.directions
        return replace(found, directions=directions, codes=found.codes * self.scale(i))

    def directions(self, i: int) -> NDArray[np.float64]:
        """Unit directions of the oracle dictionary at checkpoint i: [latents, d]; ``oracle(i).features`` names them."""
        return self.oracle(i).directions

    def codes(self, i: int) -> sp.csc_array:
        """Codes of the oracle dictionary at checkpoint i: [rows, latents]."""
        return self.oracle(i).codes

    def scale(self, i: int) -> float:
        """Factor of all activations at checkpoint i."""
        part = i / max(1, self.config.checkpoints - 1)
        jumped = i >= round(0.6 * self.config.checkpoints)
        return float(self.config.growth**part * (self.config.jump if jumped else 1))

    def write(self, directory: Path) -> Path:
        """Writes ``step_<n>.safetensors`` and ``text.json`` (for ``dynamics import``), ``truth.json`` and the settings.

        Returns:
            The directory. The text names each row by sequence and position, so that sequences are known to be such.
        """
        directory.mkdir(parents=True, exist_ok=True)
        for i, step in enumerate(self.steps):
            self._save(directory / f"step_{step:08d}.safetensors", i)
        (directory / "truth.json").write_text(self.truth.to_json(), encoding="utf-8")
        (directory / "text.json").write_text(json.dumps(self._text()), encoding="utf-8")
        made_by = json.dumps({"seed": self.seed, **asdict(self.config)}, indent=1)
        (directory / "world.json").write_text(made_by, encoding="utf-8")
        return directory

    def _save(self, path: Path, i: int) -> None:
        save_file({"activations": self.activations(i)}, path)

    def write_oracle_saes(self, directory: Path) -> Path:
        """Writes the oracle dictionary of every checkpoint as an SAE (for ``dynamics import-saes``)."""
        directory.mkdir(parents=True, exist_ok=True)
        for i, step in enumerate(self.steps):
            write_sae(directory / f"step_{step:08d}.safetensors", self.oracle(i), self.activations(i))
        return directory

    # --- parts of the activations -----------------------------------------------------------------------------

    @cached_property
    def _supports(self) -> Supports:
        return Supports(self.config, self.plan, self._rng(SUPPORTS), self.seed)

    @cached_property
    def _turns(self) -> list[NDArray[np.float32]]:
        """The turn of the whole space at every checkpoint, each the last one turned a little more."""
        rng, turns = self._rng(SPACE), [np.eye(self.config.d)]
        for _ in range(1, self.config.checkpoints):
            turns.append(_small_turn(self.config.d, np.radians(self.config.turn), rng) @ turns[-1])
        return [turn.astype(np.float32) for turn in turns]

    def _noise(self, i: int) -> NDArray[np.float32]:
        shape = (self.config.rows, self.config.d)
        rng = self._rng(NOISE)
        axes = np.linalg.qr(rng.standard_normal((self.config.d, self.config.d)))[0]
        sizes = np.arange(1, self.config.d + 1) ** -0.5
        mix = (sizes / np.linalg.norm(sizes) * self.config.noise)[:, None] * axes.T
        return np.asarray(self._partly_fixed(NOISE, i, shape) @ mix.astype(np.float32))

    def _background(self, i: int) -> NDArray[np.float32] | float:
        if not self.config.background:
            return 0.0
        directions = unit(self._rng(BACKGROUND).standard_normal((4, self.config.d))) * self.config.background
        return np.asarray(self._partly_fixed(BACKGROUND, i, (self.config.rows, 4)) @ directions.astype(np.float32))

    def _partly_fixed(self, stream: int, i: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        """Standard normal numbers of which the share ``noise_fixed`` of the variance is the same at all checkpoints."""
        share, total = self.config.noise_fixed, np.zeros(shape, dtype=np.float32)
        for part, key in ((share, 0), (1 - share, i + 1)):
            if part:
                total += np.float32(np.sqrt(part)) * self._rng(stream, key).standard_normal(shape, dtype=np.float32)
        return total

    def _text(self) -> list[list[str]]:
        size, rows = self.config.sequence, self.config.rows
        return [
            [f"{start // size}:{row - start}" for row in range(start, min(rows, start + size))]
            for start in range(0, rows, size)
        ]

    def _steps(self) -> list[int]:
        count = self.config.checkpoints
        if not self.config.uneven:
            return [100 * i for i in range(count)]
        gaps = np.exp(self._rng(STEPS).uniform(np.log(20), np.log(500), count - 1)).astype(int)
        return [0, *(int(step) for step in gaps.cumsum())]

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])


def _small_turn(d: int, angle: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random rotation that turns vectors by ``angle`` (radians, root mean square over directions)."""
    skew = rng.standard_normal((d, d))
    skew = skew - skew.T
    skew *= angle * np.sqrt(d) / np.linalg.norm(skew)
    identity = np.eye(d)
    return np.asarray(np.linalg.solve(identity + skew / 2, identity - skew / 2))  # Cayley: exactly orthogonal
