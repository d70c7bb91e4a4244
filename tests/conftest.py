"""Fixtures for tests that need a whole run directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dynamics import tracking
from dynamics.capture.probe import ProbeRows
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import write_probe
from dynamics.files.settings import write_settings
from dynamics.files.snapshots import SnapshotRecord, load_activations, write_snapshot
from dynamics.pipeline import fits
from dynamics.pipeline.plan import SiteState, null_span
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


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(steps, sites)`` gives a run with snapshots and settings, and nothing done."""
    return runs_in(tmp_path)


def runs_in(folder: Path) -> MakeRun:
    def make(
        steps: int = 5, sites: tuple[str, ...] = ("blocks.0",), name: str = "run", settings: SaeConfig | None = SMALL
    ) -> RunDirectory:
        run = RunDirectory.create(folder / name)
        sequence, position = np.divmod(np.arange(SEQUENCES * LENGTH), LENGTH)
        text = [f"t{row}" for row in range(SEQUENCES * LENGTH)]
        write_probe(run, "p0", ProbeRows(sequence, position, text, {}))
        if settings is not None:
            write_settings(run, settings)
        for site in sites:
            for step in range(steps):
                add_snapshot(run, site, 10 * step)
        return run

    return make


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight checkpoints, worked off by the command; not to be written to."""
    run = runs_in(tmp_path_factory.mktemp("analysed"))(8)
    command = [sys.executable, "-m", "dynamics", "analyze", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return run.path


@pytest.fixture
def quick_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the tracking stage and the surrogates, which have tests of their own."""

    def shifted(run: RunDirectory, state: SiteState, seed: int) -> list[torch.Tensor]:
        return [load_activations(run, state.snapshot(record.step)) + 0.01 for record in null_span(state, seed)[1:]]

    found = SimpleNamespace(tables={}, notes=["one note"])
    monkeypatch.setattr(tracking, "track", lambda *series, **settings: found, raising=False)
    monkeypatch.setattr(fits, "null_snapshots", shifted)
