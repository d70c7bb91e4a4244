"""How much longer a training takes to end because it is tracked: at SIGTERM, at its own end, with a worker that hangs.

    python -m studies.benchmarks.ending [--repeats 10]

Each training is a process of its own, by Lightning, ended at a random step; a worker that hangs is stopped by SIGSTOP.
Prints the seconds from the signal, or from the last step, to the end of the process, and how many more these are than
those of the untracked training just before or after: median and longest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KINDS = ("untracked", "tracked", "worker hangs")
ENDS = ("SIGTERM", "its own end")


def main() -> None:
    """A line for each kind of training and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _train(options.one, options.run)
        return
    for end in ENDS:
        rounds = [_round(end) for _ in range(options.repeats)]
        for kind in KINDS:
            line = f"{end:12} {kind:13} {_spread([seconds[kind] for seconds in rounds])}"
            added = _spread([seconds[kind] - seconds[KINDS[0]] for seconds in rounds])
            print(line if kind == KINDS[0] else f"{line}; added {added}", flush=True)


def _round(end: str) -> dict[str, float]:
    """Seconds of each kind of training, in turn and ended after the same pause: a busy machine is fair to all."""
    pause = random.random()
    return {kind: _ended(kind, end, pause) for kind in random.sample(KINDS, len(KINDS))}


def _spread(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"


def _ended(kind: str, end: str, pause: float) -> float:
    """Seconds until a training has ended, at SIGTERM after a pause of so many."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        own = ["--one", kind, "--run", f"{folder}/run"]
        command = [sys.executable, "-W", "ignore", "-m", "studies.benchmarks.ending", *own]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as training:
            assert training.stdout is not None
            line, workers = "", []
            while not line.startswith("step 5"):
                line = training.stdout.readline()
                if line.startswith("worker "):
                    workers.append(int(line.split()[1]))
            if kind == "worker hangs":
                _send(workers, signal.SIGSTOP)
            if end == "SIGTERM":
                time.sleep(pause)
                start = time.perf_counter()
                training.terminate()
                training.communicate()
            else:
                for line in training.stdout:
                    if line.startswith("last step"):
                        start = time.perf_counter()
            training.wait()
            took = time.perf_counter() - start
        _send(workers, signal.SIGKILL)
        return took


def _send(workers: list[int], number: int) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, number)


def _train(kind: str, run: Path) -> None:
    import lightning.pytorch as pl
    import torch

    from dynamics.callbacks.lightning import FeatureTracker
    from studies.language_model.data import probe_windows, read_corpus
    from studies.language_model.training import FULL, LENGTH, QUICK, SITES, Scale, train

    class Told(pl.Callback):
        """Says which step it is, and which process the worker."""

        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 4 and tracker is not None:
                print("worker", tracker.recorder._engine.pid, flush=True)  # type: ignore[union-attr]
            print("last step" if trainer.global_step == scale.steps else f"step {trainer.global_step}", flush=True)

    torch.set_num_threads(1)
    corpus, scale = read_corpus(), Scale(steps=60, windows=64, per_doubling=2.75, sae=QUICK.sae, batch=FULL.batch)
    windows = probe_windows(corpus, scale.windows, LENGTH)
    tracker = None if kind == "untracked" else FeatureTracker(str(run), SITES, windows.inputs, schedule=4)
    train(corpus, scale, [*([tracker] if tracker else []), Told()])


if __name__ == "__main__":
    main()
