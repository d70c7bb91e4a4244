"""What the callback costs the training run of the language model: interleaved runs with and without it.

    python -m studies.benchmarks.overhead [--steps 600] [--repeats 5] [--cores 2]

Each training is a process of its own. Checkpoints are about as dense as in the demo, one in 100 steps, so that a short
training says what a whole one costs. Prints the median training time of each kind and its ratio to `without`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch

from dynamics.callbacks.lightning import FeatureTracker
from dynamics.schedule import every
from studies.language_model.data import probe_windows, read_corpus
from studies.language_model.training import FULL, LENGTH, SITES, train

KINDS = ("without", "later", "worker")
"""No callback; snapshots only; snapshots and the background worker."""
BETWEEN_CHECKPOINTS = 100


def main() -> None:
    """Runs the trainings in turn and prints the ratios."""
    options = _options()
    if options.one:
        _one(options.one, options.steps, options.run)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for repeat in range(options.repeats):
        for kind in _rotated(repeat):
            seconds[kind].append(_in_a_process(kind, options.steps))
            print(f"repeat {repeat + 1}, {kind}: {seconds[kind][-1]:.2f} s", flush=True)
    for kind in KINDS:
        ratios = [mine / theirs for mine, theirs in zip(seconds[kind], seconds["without"], strict=True)]
        print(f"{kind:8} median {statistics.median(seconds[kind]):7.2f} s, ratio {statistics.median(ratios):.3f}")


def _rotated(repeat: int) -> tuple[str, ...]:
    """Each kind goes first in turn, so that a machine that slows down favours none."""
    first = repeat % len(KINDS)
    return KINDS[first:] + KINDS[:first]


def _in_a_process(kind: str, steps: int) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        own = ["--one", kind, "--steps", str(steps), "--run", f"{folder}/run"]
        command = [sys.executable, "-m", "studies.benchmarks.overhead", *own]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _one(kind: Literal["without", "later", "worker"], steps: int, run: Path) -> None:
    """One training; the process ends with it, which tells the worker to stop after the job in hand."""
    torch.set_num_threads(1)
    corpus = read_corpus()
    windows = probe_windows(corpus, FULL.windows, LENGTH)
    callbacks: list[pl.Callback] = [Stopwatch()]
    if kind != "without":
        schedule = every(BETWEEN_CHECKPOINTS)
        tracker = FeatureTracker(
            str(run), SITES, windows.inputs, text=windows.text, schedule=schedule, sae=FULL.sae, work=kind
        )
        callbacks.append(tracker)
    train(corpus, replace(FULL, steps=steps), callbacks)


class Stopwatch(pl.Callback):
    """Prints the seconds from the first step to the last, then ends the process."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts before the tracker looks at step 0, as the first callback of the list."""
        self.started = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Comes after the last step and before the tracker tells its worker to finish everything."""
        print(time.perf_counter() - self.started, flush=True)
        os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2, help="processor cores that all processes together may use")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
