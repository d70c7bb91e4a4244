"""A disk of a few megabytes that fills up while a training is recorded, and has room again before its end."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynamics.capture.reading import fingerprint
from dynamics.engines.inline import work_off
from dynamics.files import RunDirectory, snapshots
from dynamics.maintenance import check
from dynamics.recorder import Recorder
from dynamics.schedule import every
from studies.faults.cases import SAE, model_at, probe
from studies.faults.injection import in_a_child

SIZE = 24_000_000
STEPS = range(60)
FULL = range(20, 40)
"""Steps during which there is no room."""


@dataclass(frozen=True)
class Filled:
    """What became of a training on a disk that was full for a while."""

    acknowledged: int
    skipped: int
    wrong: tuple[str, ...]


def fill() -> Filled | None:
    """None where this process may not mount a small disk."""
    with _small_disk() as disk:
        if disk is None:
            return None
        trained = in_a_child(lambda tell: _train(disk, tell))
        skipped = [line for line in trained.acknowledged if line.startswith("skipped")]
        taken = [line for line in trained.acknowledged if not line.startswith("skipped")]
        checked = in_a_child(lambda tell: _check(disk, taken, tell))
        wrong = [*checked.acknowledged, *(said for said in (trained.said, checked.said) if said)]
        return Filled(len(taken), len(skipped), tuple(wrong))


@contextmanager
def _small_disk() -> Iterator[Path | None]:
    with tempfile.TemporaryDirectory(prefix="small-disk-") as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _train(disk: Path, tell: Callable[[str], None]) -> None:
    ballast = disk / "ballast"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Recorder(disk / "run", "0", probe(), schedule=every(1), sae=SAE, work="later") as recorder:
            for step in STEPS:
                if step == FULL.start:
                    _fill_up(ballast)
                if step == FULL.stop:
                    ballast.unlink()
                model = model_at(step)
                tell(f"{step} {fingerprint(model)}" if recorder.step(model, step) else f"skipped {step}")


def _fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _check(disk: Path, taken: list[str], tell: Callable[[str], None]) -> None:
    run = RunDirectory.open(disk / "run")
    there = {f"{record.step} {record.fingerprint}" for record in snapshots(run, "0")}
    for line in sorted(set(taken) - there):
        tell(f"acknowledged and lost: {line}")
    if not {str(step) for step in STEPS if step not in FULL} <= {line.split()[0] for line in taken}:
        tell("did not go on by itself when there was room again")
    work_off(run)
    for finding in check(run):
        tell(f"{finding.fact} -> {finding.remedy}")
