"""A run whose files say a little of everything, made without training anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynamics.capture.probe import ProbeRows
from dynamics.files import (
    RunDirectory,
    SaeRecord,
    SnapshotRecord,
    write_probe,
    write_sae,
    write_snapshot,
    write_tracking,
)

SITES = ("blocks.0.mlp", "blocks.10.mlp")
ROWS, LATENTS = 6, 3
TEXT = ["the ", "\0 nul", "half \ud800", "\u202ertl", "😀", "</script>"]

AddStep = Callable[[int], None]


def add_snapshots(run: RunDirectory, step: int) -> None:
    for number, site in enumerate(SITES):
        loss = 1 / (1 + step) if number else None  # only the second site knows the loss
        write_snapshot(
            run, SnapshotRecord(site=site, step=step, probe="p", loss=loss), torch.full((ROWS, 2), float(step))
        )


def add_saes(run: RunDirectory, step: int) -> None:
    random = np.random.default_rng(step)
    names = ("density", "mean_activation", "max_activation")
    latents = pa.table({"latent": np.arange(LATENTS)} | {name: random.random(LATENTS) for name in names})
    contexts = pa.table({"latent": [0, 0, 2], "rank": [0, 1, 0], "row": [5, 2, 3], "activation": random.random(3)})
    for site in SITES:
        for arm, seed in (("chain", 0), ("null", 0), ("null", 1)):
            record = SaeRecord(
                site=site,
                arm=arm,
                step=step,
                seed=seed,
                architecture="topk",
                n_latents=LATENTS,
                k=1,
                fvu=0.25,
                l0=1.0,
                dead=0.0,
                geometry={"scale": 1.5 + step, "effective_rank": 2.0} if arm == "chain" else {},
            )
            write_sae(run, record, {"b_dec": torch.zeros(2)}, latents, contexts if arm == "chain" else None)


def add_tracking(run: RunDirectory, steps: list[int]) -> None:
    latents = np.tile(np.arange(LATENTS), len(steps))
    history = {"track": latents + 100, "lineage": latents, "step": np.repeat(steps, LATENTS), "latent": latents}
    none = pa.array([[], []], pa.list_(pa.int64()))
    events = {
        "event": ["e1", "e2"],
        "kind": ["birth", "birth"],
        "arm": ["chain", "chain"],
        "step": [steps[-1]] * 2,
        "from_step": pa.array([None, None], pa.int64()),
        "to_step": [steps[-1]] * 2,
        "parents": none,
        "children": [[0], [1]],
        "q_value": [0.01, 0.2],
        "reason": pa.array([None, None], pa.string()),
        "evidence": pa.array([[("margin", 0.5)], []], pa.map_(pa.string(), pa.float64())),
    }
    for site in SITES:
        tables = {"feature_history": pa.table(history), "event_candidates": pa.table(events)}
        write_tracking(run, site, f"inputs{len(steps)}", tables, [f"tracked {len(steps)} steps of {site}"])


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing is tested with the files; here it only takes time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with a probe and nothing else."""
    run = RunDirectory.create(tmp_path / "run")
    rows = ProbeRows(np.arange(ROWS) // 3, np.arange(ROWS) % 3, TEXT, {"odd": np.arange(ROWS) % 2 == 1})
    write_probe(run, "p", rows)
    return run


@pytest.fixture
def add_step(run: RunDirectory) -> AddStep:
    """``add_step(step)`` adds all that a step brings, tracked anew."""
    done: list[int] = []

    def add(step: int) -> None:
        add_snapshots(run, step)
        add_saes(run, step)
        done.append(step)
        add_tracking(run, sorted(done))

    return add
