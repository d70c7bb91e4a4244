"""What a run goes through, in pieces that are quick enough to be broken at every call."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from dynamics.capture.probe import ProbeRows
from dynamics.capture.share import Share
from dynamics.faults import Faults
from dynamics.files import RunDirectory, SnapshotRecord, write_probe, write_settings, write_snapshot, write_tracking
from dynamics.maintenance import prune, repair
from dynamics.pipeline.execution import attempt
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import missing_jobs
from dynamics.recorder import Recorder
from dynamics.sae.config import SaeConfig
from dynamics.schedule import every
from dynamics.shared import Shared
from dynamics.store.store import publish

Acknowledge = Callable[[str], None]
SAE = SaeConfig(n_latents=8, k=2, steps=5, batch_size=16)
ROWS, WIDTH, SITE = 24, 4, "0"
STEPS = range(4)


@dataclass(frozen=True)
class Case:
    """A piece of work on a run directory, and the state that it starts from."""

    name: str
    prepare: Callable[[Path], None]
    work: Callable[[Path, Acknowledge], None]
    """Acknowledges what from then on must never be lost."""


def model_at(step: int, history: int = 0) -> nn.Module:
    """The model of a training at a step; another history has other weights from step 2 on."""
    generator = torch.Generator().manual_seed(step + 100 * history * (step > 1))
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def probe() -> torch.Tensor:
    """The rows that every model is shown."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(7))


def record(folder: Path, acknowledge: Acknowledge, history: int = 0) -> None:
    """A training of a few steps; what it is told was taken, it counts on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorder = Recorder(folder / "run", ["0", "1"], probe(), schedule=every(1), sae=SAE, work="later")
        with recorder:
            for step in STEPS:
                if recorder.step(model_at(step, history), step) and not recorder.skipped:
                    acknowledge(f"snapshots {history} {step}")


def rewind(folder: Path, acknowledge: Acknowledge) -> None:
    """The same training again, which goes another way after its second step."""
    record(folder, acknowledge, history=1)


def recorded(folder: Path) -> None:
    record(folder, lambda line: None)


def small(folder: Path) -> None:
    """A run of one site, with snapshots and settings."""
    run = RunDirectory.create(folder / "run")
    index = np.arange(ROWS)
    write_probe(run, "p", ProbeRows(index // 4, index % 4, [f"t{row}" for row in index], {}))
    write_settings(run, SAE)
    for step in STEPS:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(ROWS, WIDTH, generator=generator) * (torch.rand(ROWS, WIDTH, generator=generator) < 0.5) + 1
        write_snapshot(run, SnapshotRecord(site=SITE, step=step, probe="p", loss=1.0), x)


def share(folder: Path, acknowledge: Acknowledge) -> None:
    """Snapshots whose rows two ranks have, joined by the first."""
    run = RunDirectory.open(folder / "run")
    first, second = (Shared(run, Share(rank, 2), every(1), collective=False, faults=Faults(True)) for rank in range(2))
    for step in STEPS:
        for rank, rows in (second, slice(5, None)), (first, slice(5)):
            rank.mark(model_at(step))
            rank.write(SnapshotRecord(site="shared", step=step, probe="p"), probe()[rows])
        if first.join():
            acknowledge(f"shared {step}")


def fit(folder: Path, acknowledge: Acknowledge) -> None:
    """Every SAE of the chain."""
    run = RunDirectory.open(folder / "run")
    for step in STEPS:
        if attempt(run, Job("chain", SITE, step)) == "done":
            acknowledge(f"sae {step}")


def fitted(folder: Path) -> None:
    small(folder)
    fit(folder, lambda line: None)


def track(folder: Path, acknowledge: Acknowledge) -> None:
    """The files of two results, of which the later replaces nothing and the third the first."""
    run = RunDirectory.open(folder / "run")
    for number in range(3):
        table = pa.table({"step": [0, 1], "live": [number, 3], "dead": [1, 1]})
        write_tracking(run, SITE, f"{number:06d}-inputs", {"population": table, "change": table.select(["step"])}, [])
        acknowledge(f"result {number}")


def tracked(folder: Path) -> None:
    fitted(folder)
    track(folder, lambda line: None)


def publish_anew(folder: Path, acknowledge: Acknowledge) -> None:
    """The database, from nothing."""
    if publish(RunDirectory.open(folder / "run")):
        acknowledge("published")


def published(folder: Path) -> None:
    small(folder)
    publish(RunDirectory.open(folder / "run"))
    fit(folder, lambda line: None)
    track(folder, lambda line: None)


def publish_more(folder: Path, acknowledge: Acknowledge) -> None:
    """Rows added to a database that is there."""
    publish_anew(folder, acknowledge)


def damaged(folder: Path) -> None:
    tracked(folder)
    run = RunDirectory.open(folder / "run")
    publish(run)
    sae = next(run.saes(SITE).glob("chain/step_00000002*/sae.safetensors"))
    sae.write_bytes(sae.read_bytes()[:-1])
    one, other = run.snapshot(SITE, 0), run.snapshot(SITE, 1)
    for source, target in ((one, folder / "x"), (other, one), (folder / "x", other)):
        source.rename(target)


def put_right(folder: Path, acknowledge: Acknowledge) -> None:
    """What is damaged is put aside, what was swapped is put back."""
    for finding in repair(RunDirectory.open(folder / "run")):
        acknowledge(f"settled {finding.settled}")


def finished(folder: Path) -> None:
    tracked(folder)
    run = RunDirectory.open(folder / "run")
    while jobs := [job for job in missing_jobs(run) if job.kind != "track"]:
        attempt(run, jobs[0])
    from dynamics.pipeline.plan import site_state

    write_tracking(run, SITE, site_state(run, SITE).inputs_digest, {}, [])
    publish(run)


def drop(folder: Path, acknowledge: Acknowledge) -> None:
    """Raw activations are dropped."""
    prune(RunDirectory.open(folder / "run"))
    acknowledge("pruned")


CASES = (
    Case("record", lambda folder: None, record),
    Case("rewind", recorded, rewind),
    Case("share", small, share),
    Case("fit", small, fit),
    Case("track", fitted, track),
    Case("create the database", tracked, publish_anew),
    Case("publish", published, publish_more),
    Case("repair", damaged, put_right),
    Case("prune", finished, drop),
)
logging.getLogger("dynamics").setLevel(logging.CRITICAL)


def warm_up() -> None:
    """Imports what is imported late before children are forked, not in each of them. No database: it starts threads."""
    with tempfile.TemporaryDirectory() as folder:
        recorded(Path(folder) / "recorded")
        fitted(Path(folder) / "fitted")
