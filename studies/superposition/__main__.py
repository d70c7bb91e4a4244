"""Toy models of superposition through the public interfaces, scored against the columns of W."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from studies.superposition.cases import CASES, Case, case
from studies.superposition.picture import draw
from studies.superposition.runs import Watched, watched
from studies.superposition.table import events, happened, table

SIZES = ("checkpoints", "instances", "rows", "steps")


def main(arguments: list[str] | None = None) -> int:
    """Prints a table for each case and draws a picture of its first seed; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        for name in options.case:
            _study(name, case(name, **_sizes(options)), options)
    except (ValueError, RuntimeError) as error:
        print(f"studies.superposition: {error}", file=sys.stderr)
        return 1
    return 0


def _study(name: str, settings: Case, options: argparse.Namespace) -> None:
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            folder = (options.keep or Path(scratch)) / f"{name.replace(', ', '-')}-{seed}"
            outcomes.append(watched(settings, seed, folder))
            print(f"\n{name}, seed {seed}\n\n{happened(outcomes[-1])}", flush=True)
            if options.events:
                print(f"\n{events(outcomes[-1])}", flush=True)
        print(f"\n{name}, {options.seeds} seeds from {options.first_seed}\n\n{table(outcomes)}", flush=True)
        if not settings.frozen:
            _picture(name, outcomes[0], options.pictures)


def _picture(name: str, outcome: Watched, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    draw(outcome, name).save(str(path), scale_factor=1.5)
    print(f"\nThe lengths of the columns, with the events: {path}", flush=True)


def _sizes(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies.superposition", description=__doc__)
    parser.add_argument("--case", nargs="+", default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--seeds", type=int, default=5, help="runs of each case (default 5)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first run (default 0)")
    parser.add_argument("--events", action="store_true", help="print every true event, and what was said about it")
    parser.add_argument("--pictures", type=Path, default=Path("out/superposition"), help="folder of the pictures")
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"{name}, instead of the case's")
    parser.add_argument(
        "--keep", type=Path, help="keep the runs in this folder; those that are there are only analysed again"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
