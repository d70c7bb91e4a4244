"""Fixtures for tests that need a whole run directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest
import torch

from dynamics import tracking
from dynamics.files.layout import RunDirectory
from dynamics.files.snapshots import load_activations
from dynamics.pipeline import fits
from dynamics.pipeline.plan import SiteState, null_span
from tests.small_runs import MakeRun, runs_in

# The same examples in every run, however slowly they come: what fails was changed, not drawn.
hypothesis.settings.register_profile(
    "same", derandomize=True, database=None, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """``make_run(steps, sites)`` gives a run with snapshots and settings, and nothing done."""
    return runs_in(tmp_path)


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
