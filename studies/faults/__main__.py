"""Breaks runs in every way, and prints what became of them.

    python -m studies.faults [--every 1] [--only CASE ...] [--kills 200] [--damages 2000] [--sequences 2000] [--seed 0]

Takes Linux and a C compiler; a small disk to fill takes the right to mount one. Each case ends with `dynamics fsck` and
a comparison with what was acknowledged and with a run to which nothing happened. Exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from studies.faults.cases import CASES, warm_up
from studies.faults.damage import damage, swapped
from studies.faults.full import fill
from studies.faults.injection import with_shim
from studies.faults.kills import Soak
from studies.faults.rewinding import Rewinding
from studies.faults.sweep import sweep


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    name: str
    injected: int
    survived: int
    acknowledged: int
    lost: int
    wrong: tuple[str, ...] = ()


def main() -> int:
    """Prints a line for each part as soon as it is known."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="dynamics-faults-", dir=_quick_disk()))
    torch.set_num_threads(1)
    try:
        folder = with_shim(folder)
        warm_up()
        return _print(_lines(folder, options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _quick_disk() -> str | None:
    """Flushing takes time on a real disk, and shows only when the power fails, which cannot be tried here."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _lines(folder: Path, options: argparse.Namespace) -> Iterable[Line]:
    for case in (case for case in CASES if options.every > 0 and case.name in (options.only or [case.name])):
        tried = list(sweep(case, folder / case.name, options.every))
        wrong = tuple(f"{t.fault.name} at call {t.call}: {'; '.join(t.wrong)}" for t in tried if t.wrong)
        name = f"every {options.every}. call fails: {case.name}" if options.every > 1 else f"each call: {case.name}"
        yield _line(name, len(tried), sum(t.acknowledged for t in tried), wrong)
    if options.kills:
        yield _killed(folder, options)
    yield _damaged(folder, options)
    if (filled := fill()) is not None:
        yield _line("disk full for a while", 1, filled.acknowledged, filled.wrong)
    yield _rewound(options)


def _line(name: str, injected: int, acknowledged: int, wrong: tuple[str, ...]) -> Line:
    lost = sum("acknowledged and" in each for each in wrong)
    return Line(name, injected, injected - min(len(wrong), injected), acknowledged, lost, wrong)


def _killed(folder: Path, options: argparse.Namespace) -> Line:
    rounds = [round for number in range(4) for round in Soak(folder / f"soak {number}", options.seed + number).rounds(
        options.kills // 4
    )]  # fmt: skip
    wrong = tuple(text for round in rounds for text in round.wrong)
    acknowledged = sum(r.acknowledged for r in rounds if r.killed == 0)
    return _line("kill -9, 1 training 2 workers 1 reader", sum(r.killed for r in rounds), acknowledged, wrong)


def _damaged(folder: Path, options: argparse.Namespace) -> Line:
    fates = [*swapped(folder), *damage(folder / "damage", options.damages, options.seed)]
    counts = Counter(each.fate for each in fates)
    wrong = tuple(f"{e.name}, {e.how}: {e.fate}" for e in fates if e.fate not in ("found", "harmless"))
    return _line(f"damaged files ({counts['harmless']} harmless)", len(fates), len(fates), wrong)


def _rewound(options: argparse.Namespace) -> Line:
    """What goes wrong here is raised, with the shortest sequence that does it."""
    checks = settings(
        max_examples=options.sequences, stateful_step_count=15, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with mock.patch.object(os, "fsync", return_value=None):
        run_state_machine_as_test(Rewinding, settings=checks)
    return Line("kill, rewind, resume (sequences)", options.sequences, options.sequences, Rewinding.total, 0)


def _print(lines: Iterable[Line]) -> int:
    print(f"{'':44}{'injected':>9}{'survived':>9}{'acknowledged':>13}{'lost':>6}", flush=True)
    failed = False
    for line in lines:
        print(f"{line.name:44}{line.injected:9}{line.survived:9}{line.acknowledged:13}{line.lost:6}", flush=True)
        for text in line.wrong[:20]:
            print(f"    {text}", flush=True)
        failed |= bool(line.wrong)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="fail every n-th call only; 0: none")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[case.name for case in CASES])
    parser.add_argument("--kills", type=int, default=200, help="lives of a training")
    parser.add_argument("--damages", type=int, default=2000)
    parser.add_argument("--sequences", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    logging.getLogger("dynamics").setLevel(logging.CRITICAL)
    sys.exit(main())
