"""Are the q-values what they say? Many planted worlds through the public commands, and the rates that came of them.

    python -m studies.planted.calibration --preset nothing drift_only hard --seeds 20 --first-seed 100
        [--results out/calibration.jsonl] [--plot out/calibration.png] [--keep DIR] [--jobs 1]

Every world is one line of the results file. A world that is already there, of the same sizes and tracked by the same
code, is not run again, so the command can be interrupted and called again, also with more seeds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dynamics
from studies.planted.config import PRESETS, preset
from studies.planted.rates import LEVELS, report
from studies.planted.runs import SITE, Outcome, Settings, analyzed
from studies.planted.truth import KINDS
from studies.planted.worlds import World

SIZES = ("d", "features", "checkpoints", "rows")
DECIDING = ("sae", "tracking", "pipeline")
"""Parts of the library that decide what is published."""
SCORES = """
    select arm, kind, list(score order by score desc) as scores from event_candidates
    where site = '{site}' and arm in ('chain', 'null') and score > 0
        and (arm = 'null' or reason is null or reason in ('q', 'too faint to be told'))
    group by all
"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One world that is to be analysed."""

    preset: str
    seed: int
    sizes: tuple[tuple[str, int], ...]
    """Changed fields of the preset."""
    code: str
    """Digest of the code that tracks."""

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def run(self, folder: Path) -> Record:
        """Analyses the world in an empty folder."""
        world = World(preset(self.preset, **dict(self.sizes)), self.seed)
        return {"job": asdict(self), **measured(analyzed(world, folder, Settings()))}


def measured(outcome: Outcome) -> Record:
    """What calibration is judged by, as plain values."""
    at = {level: outcome.scores(level) for level in LEVELS}
    truth = outcome.world.truth
    return {
        "seconds": outcome.seconds,
        "true": {kind: len(truth.of_kind(kind)) for kind in KINDS},
        "counts": {str(level): {kind: asdict(found.kinds[kind]) for kind in KINDS} for level, found in at.items()},
        "transitions": asdict(outcome.scores().transitions),
        "units": units(outcome.run),
    }


def units(run: Any) -> dict[str, Record]:
    """For each kind: how many units were tested and how many of the null arm they were held against, and what they
    scored. Scores of 0 are not listed.
    """
    found: dict[str, Record] = {}
    for row in run.sql(f"select kind, tests, null_candidates from resolution where site = '{SITE}'").to_pylist():
        found[row["kind"]] = {"tests": row["tests"], "null_candidates": row["null_candidates"], "chain": [], "null": []}
    for row in run.sql(SCORES.format(site=SITE)).to_pylist():
        if row["kind"] in found:
            found[row["kind"]][row["arm"]] = row["scores"]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Runs what is missing and prints the rates of every preset."""
    options = _parser().parse_args(arguments)
    try:
        wanted = jobs(options)
        for record in missing(wanted, options):
            job = record["job"]
            print(f"{job['preset']} {job['seed']}: {record['seconds']:.0f} s", file=sys.stderr, flush=True)
    except (ValueError, RuntimeError) as error:
        print(f"studies.planted.calibration: {error}", file=sys.stderr)
        return 1
    known = read(options.results)
    worlds = {name: [known[job.key] for job in wanted if job.preset == name] for name in options.preset}
    print("\n\n".join(report(name, records) for name, records in worlds.items()))
    if options.plot:
        from studies.planted.calibration_chart import calibration_chart  # altair only where something is drawn

        options.plot.parent.mkdir(parents=True, exist_ok=True)
        calibration_chart(worlds).save(options.plot, scale_factor=2)
    return 0


def jobs(options: argparse.Namespace) -> list[Job]:
    """Every world that was asked for.

    Raises:
        ValueError: if there is no such preset, or its sizes are out of range.
    """
    sizes = tuple((name, getattr(options, name)) for name in SIZES if getattr(options, name) is not None)
    for name in options.preset:
        preset(name, **dict(sizes))
    seeds, code = range(options.first_seed, options.first_seed + options.seeds), code_digest()
    return [Job(name, seed, sizes, code) for name in options.preset for seed in seeds]


def missing(wanted: list[Job], options: argparse.Namespace) -> Iterator[Record]:
    """Runs the worlds that the results file lacks and adds each as soon as it is known."""
    known = read(options.results)
    todo = [job for job in wanted if job.key not in known]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(_in_a_folder, job, options.keep) for job in todo]
        try:
            for done in as_completed(running):
                record = done.result()
                with options.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                yield record
        finally:
            pool.shutdown(cancel_futures=True)


def _in_a_folder(job: Job, keep: Path | None) -> Record:
    """Files of an interrupted run are in the way and go."""
    if keep is None:
        with tempfile.TemporaryDirectory() as scratch:
            return job.run(Path(scratch))
    folder = keep / f"{job.preset}-{job.seed}"
    if folder.exists():
        shutil.rmtree(folder)
    return job.run(folder)


def read(results: Path) -> dict[str, Record]:
    """The worlds of a results file by their job; a line that an interruption cut short is left out."""
    known: dict[str, Record] = {}
    for line in results.read_text(encoding="utf-8").splitlines() if results.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        sizes = tuple((name, size) for name, size in record["job"]["sizes"])
        known[Job(**{**record["job"], "sizes": sizes}).key] = record
    return known


def code_digest() -> str:
    """Names the code that decides what is published, so that worlds that other code tracked are run again."""
    digest = hashlib.sha256()
    for path in sorted(p for part in DECIDING for p in (Path(dynamics.__file__).parent / part).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.planted.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--preset", nargs="+", default=["nothing", "drift_only", "hard"], help=", ".join(PRESETS))
    parser.add_argument("--seeds", type=int, default=20, help="worlds of each preset (default 20)")
    parser.add_argument("--first-seed", type=int, default=100, help="seed of the first world (default 100)")
    parser.add_argument("--results", type=Path, default=Path("out/calibration.jsonl"), help="a line for each world")
    parser.add_argument("--plot", type=Path, help="draw nominal against realised rates here (PNG, SVG or HTML)")
    parser.add_argument("--keep", type=Path, help="keep snapshots and runs in this folder")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at the same time (default 1)")
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, help=f"{name} of the worlds, instead of the preset's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
