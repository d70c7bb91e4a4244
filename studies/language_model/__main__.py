"""The demo: trains the model under the tracker, waits for the analysis, prints what happened."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import dynamics
from dynamics.callbacks.lightning import FeatureTracker
from studies.language_model.data import Corpus, probe_windows, read_corpus
from studies.language_model.summary import failures, summary
from studies.language_model.training import FULL, LENGTH, QUICK, SITES, ProgressBar, Scale, train
from studies.language_model.truth import NgramDistance, fit_ngrams


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; the exit code."""
    options = _options(arguments)
    run = options.run or _new_name(Path("out/language_model"))
    if run.exists():
        print(f"{run} exists; give a new name with --run, or leave it out", file=sys.stderr)
        return 2
    torch.set_num_threads(1)  # the background worker has the other core
    started = time.monotonic()
    corpus = read_corpus()
    print(
        f"{len(corpus.train):,} characters of Python's standard library to train on, "
        f"{len(corpus.held_out):,} held out; the run is in {run}"
    )
    scale = replace(QUICK if options.quick else FULL, seed=options.seed)
    curves = watch(corpus, scale, run)
    history = dynamics.open(run)
    history.analyze()
    report = run / "report.html"
    dynamics.report(history, report)
    print(summary(history, str(run), curves))
    print(f"\nReport, opens offline: {report}\nTook {time.monotonic() - started:.0f} s.")
    return 1 if failures(history) else 0


def watch(corpus: Corpus, scale: Scale, run: Path) -> dict[str, dict[int, float]]:
    """Trains with the tracker attached; the distance to each n-gram model by step, also in ``ngrams.json``."""
    windows = probe_windows(corpus, scale.windows, LENGTH)
    tracker = FeatureTracker(
        str(run),
        sites=SITES,
        probe=windows.inputs,
        text=windows.text,
        concepts=windows.concepts,
        schedule=scale.schedule,
        sae=scale.sae,
    )
    truth = NgramDistance(windows.inputs, fit_ngrams(corpus.train), scale.schedule)
    train(corpus, scale, [tracker, truth, ProgressBar()])
    (run / "ngrams.json").write_text(json.dumps(truth.curves))
    return truth.curves


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.language_model", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small run: fewer steps, probe rows and latents")
    parser.add_argument("--seed", type=int, default=0, help="of the network's weights and batches; the probe stays")
    parser.add_argument("--run", type=Path, help="a new directory; left out: out/language_model, then -2, -3, …")
    return parser.parse_args(arguments)


def _new_name(path: Path) -> Path:
    number, name = 1, path
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}-{number}")
    return name


if __name__ == "__main__":
    sys.exit(main())
