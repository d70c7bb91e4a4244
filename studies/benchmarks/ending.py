"""How much longer a training takes to end because it is tracked: at SIGTERM, at its own end, with a worker that hangs.

    python -m studies.benchmarks.ending [--repeats 10] [--kinds untracked tracked] [--ends SIGTERM]

Each training is a process of its own, by Lightning, forked from this one, which has imported everything. It is ended
at a random moment; a worker that hangs is stopped by SIGSTOP. Prints the seconds from the signal, or from the last
step, to the end of the process, how many more these are than those of the untracked training just before or after, and
how many of them the tracker's last hook takes: on a busy machine the difference of two trainings is mostly chance.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

import lightning.pytorch as pl
import numpy as np
import torch

from dynamics.callbacks.lightning import FeatureTracker
from studies.language_model.data import probe_windows, read_corpus
from studies.language_model.training import FULL, LENGTH, QUICK, SITES, Scale, train

KINDS = ("untracked", "tracked", "worker hangs")
ENDS = ("SIGTERM", "its own end")
SCALE = Scale(steps=60, windows=64, per_doubling=2.75, sae=QUICK.sae, batch=FULL.batch)


def main() -> None:
    """A line for each kind of training and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--ends", nargs="+", choices=ENDS, default=ENDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for end in options.ends:
        rounds = [_round(end, sorted({*options.kinds, KINDS[0]})) for _ in range(options.repeats)]
        for kind in sorted(rounds[0], key=KINDS.index):
            line = f"{end:12} {kind:13} {_spread([found[kind].seconds for found in rounds])}"
            if kind != KINDS[0]:
                added = _spread([found[kind].seconds - found[KINDS[0]].seconds for found in rounds])
                line += f"; added {added}; in the hook {_spread([found[kind].hook for found in rounds])}"
            print(line, flush=True)


@dataclass(frozen=True)
class Ended:
    """How long a training took to end, and how much of it was the tracker's hook."""

    seconds: float
    hook: float


def _round(end: str, kinds: list[str]) -> dict[str, Ended]:
    """The end of each kind of training, in turn and ended after the same pause: a busy machine is fair to all."""
    pause = random.random()
    return {kind: _ended(kind, end, pause) for kind in random.sample(kinds, len(kinds))}


def _spread(seconds: list[float]) -> str:
    median, nearly_all = np.percentile(seconds, [50, 99])
    return f"median {median:.2f} s, p99 {nearly_all:.2f} s, longest {max(seconds):.2f} s"


def _ended(kind: str, end: str, pause: float) -> Ended:
    """A training that has ended, at SIGTERM after a pause of so many seconds."""
    folder = Path(tempfile.mkdtemp())  # not in a with statement, which the child would leave too
    training, said = _started(kind, folder / "run")
    line, workers = "", []
    while not line.startswith("step 5"):
        line = said.readline()
        if line.startswith("worker "):
            workers.append(int(line.split()[1]))
    if kind == "worker hangs":
        _send(workers, signal.SIGSTOP)
    if end == "SIGTERM":
        time.sleep(pause)
        start = time.perf_counter()
        os.kill(training, signal.SIGTERM)
    else:
        while not said.readline().startswith("last step"):
            pass
        start = time.perf_counter()
    os.waitpid(training, 0)
    took = time.perf_counter() - start
    with said:
        hooks = [float(line.split()[1]) for line in said if line.startswith("hook ")]
    _send(workers, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
    return Ended(took, sum(hooks))


def _send(workers: list[int], number: int) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, number)


def _started(kind: str, run: Path) -> tuple[int, TextIO]:
    """Process id of a training, and what it says."""
    reader, writer = os.pipe()
    if (training := os.fork()) == 0:
        _train(kind, run, writer)
    os.close(writer)
    return training, os.fdopen(reader)


class Timed(FeatureTracker):
    """Says how long its last hooks take."""

    def on_exception(self, *given: Any) -> None:
        _say_time(super().on_exception, *given)

    def on_train_end(self, *given: Any) -> None:
        _say_time(super().on_train_end, *given)


def _say_time(hook: Callable[..., None], *given: Any) -> None:
    start = time.perf_counter()
    hook(*given)
    print("hook", time.perf_counter() - start, flush=True)


def _train(kind: str, run: Path, writer: int) -> NoReturn:
    """The training, and the end of its process as Python ends any."""

    class Told(pl.Callback):
        """Says which step it is, and which process the worker."""

        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 4 and tracker is not None:
                print("worker", tracker.recorder._engine.pid, flush=True)  # type: ignore[union-attr]
            print("last step" if trainer.global_step == SCALE.steps else f"step {trainer.global_step}", flush=True)

    os.dup2(writer, sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    corpus = read_corpus()
    windows = probe_windows(corpus, SCALE.windows, LENGTH)
    tracker = None if kind == "untracked" else Timed(str(run), SITES, windows.inputs, schedule=4)
    train(corpus, SCALE, [*([tracker] if tracker else []), Told()])
    sys.exit()


if __name__ == "__main__":
    main()
