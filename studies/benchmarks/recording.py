"""What recording costs: the time of a look and of a step without one, and memory over thousands of snapshots.

    python -m studies.benchmarks.recording [--snapshots 10000]

One process and one thread. The model, the batches and the probe are those of the demo; a look shows the probe, and
writes and flushes the snapshot files. The share is that of 40 looks in 10,000 steps.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dynamics import Recorder, every
from studies.language_model.data import Batches, probe_windows, read_corpus
from studies.language_model.model import CharacterModel
from studies.language_model.training import FULL, LENGTH, SITES

REPEATS = 15


def main() -> None:
    """Prints seconds, the share, and megabytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=int, default=10_000)
    snapshots = parser.parse_args().snapshots
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _time(Path(folder))
        _memory(Path(folder), snapshots)


def _time(folder: Path) -> None:
    corpus = read_corpus()
    windows = probe_windows(corpus, FULL.windows, LENGTH)
    torch.manual_seed(0)
    model = CharacterModel(length=LENGTH)
    model.log = lambda *given, **named: None  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(model.parameters())
    batches = iter(Batches(corpus.train, steps=REPEATS, batch=FULL.batch, length=LENGTH, seed=0))

    def train() -> None:
        optimizer.zero_grad()
        model.training_step(next(batches), 0).backward()
        optimizer.step()

    with Recorder(
        folder / "time", SITES, windows.inputs, text=windows.text, schedule=every(2), work="later"
    ) as recorder:
        steps = iter(range(10**9))
        recorder.step(model, next(steps))
        trained, idle, looked = [], [], []
        for _ in range(REPEATS):
            trained.append(_seconds(train))
            idle.append(_seconds(lambda: recorder.step(model, next(steps))))
            looked.append(_seconds(lambda: recorder.step(model, next(steps))))
    step, without, look = (statistics.median(each) for each in (trained, idle, looked))
    print(f"training step {step:.4f} s, look {look:.4f} s, step without a look {without * 1e6:.0f} µs")
    print(f"40 looks in 10,000 steps: {(40 * look + 10_000 * without) / (10_000 * step):.2%} of the training")


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
