"""What recording costs: the time of a look and of a step without one, and memory over thousands of snapshots.

    python -m studies.benchmarks.recording [--batch 32] [--windows 256] [--snapshots 10000]

One process and one thread. The model, the batches and the probe are those of the demo; a look shows the probe, and
writes and flushes the snapshot files. What cannot be saved is the forward pass over the probe, which is timed beside
it, in turn. The share is that of 40 looks in 10,000 steps. Then what a look at the published numbers costs a training
with loggers, for 100 checkpoints of 4 sites.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from dynamics import Recorder, every
from dynamics.callbacks.scalars import Scalars
from dynamics.capture.guard import undisturbed
from studies.language_model.data import Batches, probe_windows, read_corpus
from studies.language_model.model import CharacterModel
from studies.language_model.training import FULL, LENGTH, SITES

REPEATS = 15


def main() -> None:
    """Prints seconds, the share, and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=FULL.batch, help="windows of a training step")
    parser.add_argument("--windows", type=int, default=FULL.windows, help="windows of the probe")
    parser.add_argument("--snapshots", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _time(Path(folder), options.batch, options.windows)
        _scalars(Path(folder))
        _memory(Path(folder), options.snapshots)


def _time(folder: Path, batch: int, n_windows: int) -> None:
    corpus = read_corpus()
    windows = probe_windows(corpus, n_windows, LENGTH)
    torch.manual_seed(0)
    model = CharacterModel(length=LENGTH)
    model.log = lambda *given, **named: None  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(model.parameters())
    batches = iter(Batches(corpus.train, steps=REPEATS, batch=batch, length=LENGTH, seed=0))

    def train() -> None:
        optimizer.zero_grad()
        model.training_step(next(batches), 0).backward()
        optimizer.step()

    def show() -> None:
        with undisturbed(model):
            for part in recorder.probe.batches:
                model(part)

    with Recorder(
        folder / "time", SITES, windows.inputs, text=windows.text, schedule=every(2), work="later"
    ) as recorder:
        steps = iter(range(10**9))
        recorder.step(model, next(steps))
        look = lambda: recorder.step(model, next(steps))  # noqa: E731
        seconds = [[_seconds(each) for each in (train, look, look, show)] for _ in range(REPEATS)]
    step, without, looked, shown = map(statistics.median, zip(*seconds, strict=True))
    print(f"training step {step:.4f} s, step without a look {without * 1e6:.0f} µs")
    print(f"look {looked:.4f} s, {looked / shown:.2f} times the forward pass over the probe, {shown:.4f} s")
    share, floor = ((40 * each + 10_000 * idle) / (10_000 * step) for each, idle in ((looked, without), (shown, 0)))
    print(f"40 looks in 10,000 steps: {share:.2%} of the training; the forward passes alone {floor:.2%}")


def _scalars(folder: Path) -> None:
    rows = [
        {"site": f"site {site}", "step": step, "fvu": 0.1, "live": step} for step in range(100) for site in range(4)
    ]
    path = folder / "scalars.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "l0": 1.0} for row in rows]), path)
    scalars = Scalars(path, seconds=0.0)
    first = _seconds(scalars.next)
    while scalars.next():
        pass
    again = statistics.median(_seconds(scalars.next) for _ in range(100))
    print(f"numbers for loggers: {first * 1e3:.1f} ms where they are new, {again * 1e6:.0f} µs where not")


def _memory(folder: Path, snapshots: int) -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    with Recorder(folder / "memory", "0", torch.randn(16, 8), schedule=every(1), work="later") as recorder:
        for step in range(snapshots + 1):
            recorder.step(model, step)
            if step in (snapshots // 10, snapshots // 2, snapshots):
                print(f"after {step} snapshots: {_resident():.1f} MB")


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
