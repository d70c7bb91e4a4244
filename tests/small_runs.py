"""Small run directories for tests; apart from conftest.py, whose name every folder of tests may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dynamics.capture.probe import ProbeRows
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import write_probe
from dynamics.files.settings import write_settings
from dynamics.files.snapshots import SnapshotRecord, write_snapshot
from dynamics.sae.config import SaeConfig

SEQUENCES, LENGTH, D_IN, FEATURES = 24, 16, 8, 12
SITE = "blocks.0"
SMALL = SaeConfig(n_latents=16, k=2, steps=30, batch_size=128)

MakeRun = Callable[..., RunDirectory]


def activations(step: int) -> torch.Tensor:
    """Sparse combinations of fixed directions, the same features on the same rows at every step, plus fresh noise."""
    fixed, fresh = torch.Generator().manual_seed(0), torch.Generator().manual_seed(step)
    rows = SEQUENCES * LENGTH
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D_IN, generator=fixed), dim=1)
    codes = torch.rand(rows, FEATURES, generator=fixed) * (torch.rand(rows, FEATURES, generator=fixed) < 0.15)
    return 3 * codes @ directions + 0.05 * torch.randn(rows, D_IN, generator=fresh) + 1


def add_snapshot(run: RunDirectory, site: str, step: int, x: torch.Tensor | None = None) -> None:
    record = SnapshotRecord(site=site, step=step, probe="p0", loss=1 / (1 + step))
    write_snapshot(run, record, activations(step) if x is None else x)


def runs_in(folder: Path) -> MakeRun:
    def make(
        steps: int = 5, sites: tuple[str, ...] = ("blocks.0",), name: str = "run", settings: SaeConfig | None = SMALL,
        words: Sequence[str] = (), concepts: Sequence[str] = (),
    ) -> RunDirectory:  # fmt: skip
        run = RunDirectory.create(folder / name)
        sequence, position = np.divmod(np.arange(SEQUENCES * LENGTH), LENGTH)
        text = [words[row % len(words)] if words else f"t{row}" for row in range(SEQUENCES * LENGTH)]
        masks = {concept: position == number % LENGTH for number, concept in enumerate(concepts)}
        write_probe(run, "p0", ProbeRows(sequence, position, text, masks))
        if settings is not None:
            write_settings(run, settings)
        for site in sites:
            for step in range(steps):
                add_snapshot(run, site, 10 * step)
        return run

    return make
