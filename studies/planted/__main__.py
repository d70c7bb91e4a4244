"""Planted worlds through the public commands, scored beside the rules in use elsewhere and the ceiling."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from studies.planted.baselines import RULES
from studies.planted.cells import INSTALL, cell_figures
from studies.planted.clothes import CLOTHES, DressedWorld, clothes
from studies.planted.config import PRESETS, WorldConfig, preset
from studies.planted.report import Report
from studies.planted.runs import LEVELS, Outcome, Settings, analyzed
from studies.planted.scoring import ceiling, shown_share
from studies.planted.table import Figures, ceiling_figures, figures, table
from studies.planted.worlds import World

SIZES = ("d", "features", "checkpoints", "rows")


def main(arguments: list[str] | None = None) -> int:
    """Prints one table for each preset."""
    options = _parser().parse_args(arguments)
    settings = Settings(options.oracle, options.latents, options.k, options.sae_seed)
    try:
        for name in options.preset:
            rows = study(preset(name, **_sizes(options)), options, settings)
            _print(name, options, rows)
    except (ValueError, RuntimeError) as error:
        print(f"studies.planted: {error}", file=sys.stderr)
        return 1
    return 0


def study(config: WorldConfig, options: argparse.Namespace, settings: Settings) -> dict[str, list[Figures]]:
    """The figures of every tracker on every seed."""
    rows: dict[str, list[Figures]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        world = World(config, seed)
        if options.clothes != "plain":
            world = DressedWorld(world, clothes(options.clothes))
        with tempfile.TemporaryDirectory() as scratch:
            outcome = analyzed(world, _folder(options.keep, scratch, seed), settings)
            for name, found in compared(outcome, same_index=not settings.oracle, cells=options.cells).items():
                rows.setdefault(name, []).append(found)
    return rows


def compared(outcome: Outcome, *, same_index: bool = True, cells: str | None = None) -> dict[str, Figures]:
    """The figures of ours, of the baselines and of the ceiling on one world.

    Args:
        outcome: the analysed world.
        same_index: whether the rule of the same index makes sense for these dictionaries.
        cells: an interpreter that has traccuracy, for the scores of cell tracking.
    """
    truth, count = outcome.world.truth, len(outcome.world.steps)

    def judged(report: Report) -> Figures:
        found = figures(outcome.scored(report), count)
        return found | (cell_figures(truth, outcome.assignments, report, cells) if cells else {})

    ours = judged(outcome.report())
    for level in LEVELS:
        ours[f"FDP at q ≤ {level}"] = outcome.scores(level).events.false_share
    ours["features shown"] = shown_share(truth, outcome.assignments)
    ours["seconds"] = outcome.seconds
    found = {"ours": ours}
    for name, rule in RULES.items():
        if same_index or name != "same index":
            found[name] = judged(outcome.baseline(rule))
    found["ceiling"] = ceiling_figures(ceiling(truth, outcome.assignments))
    found["ceiling, any date"] = ceiling_figures(ceiling(truth, outcome.assignments, within=None))
    return found


def _folder(keep: Path | None, scratch: str, seed: int) -> Path:
    return Path(scratch) if keep is None else keep / f"seed{seed}"


def _sizes(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}


def _print(name: str, options: argparse.Namespace, rows: dict[str, list[Figures]]) -> None:
    kind = "oracle dictionaries" if options.oracle else "trained dictionaries"
    print(
        f"\n{name}, {kind}, {options.clothes}: {options.seeds} worlds from seed {options.first_seed}\n\n{table(rows)}"
    )
    sys.stdout.flush()
    if options.json is not None:
        with options.json.open("a", encoding="utf-8") as file:
            record = {"preset": name, "oracle": options.oracle, "clothes": options.clothes, "figures": rows}
            file.write(json.dumps(record) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m studies.planted", description=__doc__)
    parser.add_argument("--preset", nargs="+", default=["hard"], metavar="NAME", help=", ".join(PRESETS))
    parser.add_argument("--seeds", type=int, default=3, help="worlds of each preset (default 3)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first world (default 0)")
    parser.add_argument("--oracle", action="store_true", help="true dictionaries instead of trained ones")
    parser.add_argument("--latents", type=float, default=2.0, help="latents per feature (default 2)")
    parser.add_argument("--k", type=int, help="latents that fire on a row (default: features active on a row, and 4)")
    parser.add_argument("--sae-seed", type=int, default=0, help="seed of the fits (default 0)")
    parser.add_argument("--clothes", default="plain", help=", ".join(CLOTHES))
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"{name} of the worlds, instead of the preset's")
    parser.add_argument(
        "--cells",
        nargs="?",
        const=sys.executable,
        metavar="PYTHON",
        help=f"score as cell tracking does too, with an interpreter that has traccuracy (default this one); {INSTALL}",
    )
    parser.add_argument("--keep", type=Path, help="keep snapshots and runs in this folder")
    parser.add_argument("--json", type=Path, help="append the figures of every world to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
