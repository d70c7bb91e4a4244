"""Grokking and its control without weight decay: births in each phase of the training."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import dynamics
from studies.grokking.births import evidence, table
from studies.grokking.picture import Watched, draw
from studies.grokking.training import Setting, record, split
from studies.grokking.truth import Phase, key_losses, phases
from studies.planted.runs import command


def main(arguments: list[str] | None = None) -> int:
    """Prints a table for each seed and draws a picture of the first; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            with tempfile.TemporaryDirectory() as scratch:
                runs = watched(_setting(options, seed), options.keep or Path(scratch))
                parts = phases(runs[0][1])
                print(_told(seed, runs, parts, _setting(options, seed)), flush=True)
                if seed == options.first_seed:
                    _picture(runs, parts, options.pictures)
    except (ValueError, RuntimeError) as error:
        print(f"studies.grokking: {error}", file=sys.stderr)
        return 1
    return 0


def watched(setting: Setting, folder: Path) -> list[Watched]:
    """The run and its control, trained, recorded and analysed."""
    made = []
    for name, given in (("grokking", setting), ("control", replace(setting, weight_decay=0.0))):
        run = folder / f"{name}-{setting.seed}"
        found = record(given, run)
        command("analyze", run)
        made.append((name, found, dynamics.open(run)))
    return made


def _told(seed: int, runs: list[Watched], parts: list[Phase], setting: Setting) -> str:
    pairs, learned = split(setting)
    frequencies, losses = key_losses(runs[0][1], pairs, learned)
    lines = [f"\nseed {seed}: key frequencies {frequencies}"]
    for phase in parts:
        m, (restricted, excluded) = runs[0][1][phase.last], losses[phase.last]
        lines.append(
            f"  {phase.name} to step {phase.last}: test accuracy {m.test_accuracy:.2f}, Σw² {m.squared_weights:.0f}, "
            f"Gini {m.gini:.2f}, restricted loss {restricted:.2f}, excluded loss {excluded:.2g}"
        )
    control = list(runs[1][1].values())[-1]
    lines.append(f"  control at the end: test accuracy {control.test_accuracy:.2f}, Gini {control.gini:.2f}\n")
    named = [(name, run) for name, _, run in runs]
    return "\n".join([*lines, table(named, parts), "", *(evidence(*each) for each in named)])


def _picture(runs: list[Watched], parts: list[Phase], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "grokking.png"
    draw(runs, parts).save(str(path), scale_factor=1.5)
    print(f"\nAccuracy, Gini coefficient and births: {path}", flush=True)


def _setting(options: argparse.Namespace, seed: int) -> Setting:
    given = {name: getattr(options, name) for name in ("steps", "per_window") if getattr(options, name) is not None}
    return Setting(seed=seed, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies.grokking", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="runs with their controls (default 1)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (default 0)")
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of 6000")
    parser.add_argument("--per-window", type=float, help="checkpoints while the step grows by 1.6 (default 1)")
    parser.add_argument("--pictures", type=Path, default=Path("out/grokking"), help="folder of the picture")
    parser.add_argument(
        "--keep", type=Path, help="keep the runs in this folder; those that are there are only analysed again"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
