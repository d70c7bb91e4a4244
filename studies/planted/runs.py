"""A planted world through the public commands, from files to events, and back as scores."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import dynamics
from dynamics.sae.autoencoder import SparseAutoencoder
from studies.planted import baselines
from studies.planted.baselines import Shown
from studies.planted.matching import Assignments, assign
from studies.planted.report import Report, from_run
from studies.planted.scoring import Scores, score
from studies.planted.worlds import World

SITE = "planted"
LEVELS = (0.05, 0.1, 0.2)
"""Levels at which the realised share of false discoveries is measured."""


@dataclass(frozen=True)
class Settings:
    """How the dictionaries are made."""

    oracle: bool = False
    """True dictionaries are imported instead of trained."""
    latents: float = 2.0
    """Latents per feature that is alive at the start."""
    k: int | None = None
    """Latents that fire on a row; None means as many as features are active, and four for the background."""
    seed: int = 0
    """Seed of the fits."""


@dataclass(frozen=True)
class Outcome:
    """Everything that is known about one analysed world."""

    world: World
    run: Any
    """The opened :class:`dynamics.Run`."""
    dictionaries: dict[int, Shown]
    assignments: Assignments
    seconds: float
    """From files to events."""

    def report(self, level: float | None = None) -> Report:
        """What the run says, as published or as it would be published at another level."""
        return from_run(self.run, SITE, level)

    def baseline(self, rule: baselines.Rule) -> Report:
        """What a rule of :mod:`studies.planted.baselines` says of the same dictionaries."""
        return baselines.report(rule, self.dictionaries)

    def scores(self, level: float | None = None) -> Scores:
        """How well the run tells the truth."""
        return self.scored(self.report(level))

    def scored(self, report: Report) -> Scores:
        """How well a report tells the truth."""
        return score(self.world.truth, self.assignments, report)


def analyzed(world: World, folder: Path, settings: Settings) -> Outcome:
    """Writes a world to a folder and runs ``dynamics import``, ``import-saes`` (for the oracle) and ``analyze`` on it.

    Raises:
        RuntimeError: if a command fails, with what it said.
    """
    files, run = world.write(folder / "snapshots"), folder / "run"
    begun = time.perf_counter()
    command("import", files, run, "--site", SITE, "--text", files / "text.json")
    if settings.oracle:
        saes = world.write_oracle_saes(folder / "saes")
        begun = time.perf_counter()
        command("import-saes", saes, run, "--site", SITE, "--format", "dynamics")
    n_latents = round(settings.latents * world.config.features)
    k = settings.k or int(np.ceil(world.config.active)) + (4 if world.config.background else 0)
    command("analyze", run, "--n-latents", n_latents, "--k", k, "--seed", settings.seed)
    seconds = time.perf_counter() - begun
    opened = dynamics.open(run)
    dictionaries = chain(opened, world)
    return Outcome(world, opened, dictionaries, assigned(world, dictionaries), seconds)


def command(*words: object) -> str:
    """Runs the command ``dynamics`` and returns what it printed.

    Raises:
        RuntimeError: if it fails, with what it said.
    """
    line = list(map(str, words))
    done = subprocess.run([sys.executable, "-m", "dynamics", *line], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [part for part in (done.stderr or done.stdout).splitlines() if part.strip()]
        raise RuntimeError(f"`dynamics {' '.join(line)}` failed: " + " / ".join(said[-3:]))
    return done.stdout


def chain(run: Any, world: World, site: str = SITE) -> dict[int, Shown]:
    """The tracked dictionary of each step, with its codes on the world's rows."""
    query = f"select step, path from saes where site = '{site}' and arm = 'chain' order by step"
    index = {step: i for i, step in enumerate(world.steps)}
    shown = {}
    for row in run.sql(query).to_pylist():
        sae = _read(run.path / row["path"])
        codes = sae.encode_sparse(torch.from_numpy(world.activations(index[row["step"]])))
        shown[row["step"]] = Shown(sae.W_dec.numpy(), codes)
    return shown


def assigned(world: World, dictionaries: dict[int, Shown]) -> Assignments:
    """Which true feature each latent of each dictionary is."""
    index = {step: i for i, step in enumerate(world.steps)}
    return {step: assign(world.oracle(index[step]), shown.decoder, shown.codes) for step, shown in dictionaries.items()}


def _read(path: Path) -> SparseAutoencoder:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    k = metadata.get("k")
    return SparseAutoencoder.from_tensors(load_file(path), metadata["architecture"], int(k) if k else None)
