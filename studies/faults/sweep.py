"""Every call of every case fails once, in each way; then the run is held against one to which nothing happened."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynamics.files import RunDirectory
from dynamics.files.commits import COMMIT, read_commit
from dynamics.files.saes import sae_records
from dynamics.files.snapshots import all_snapshots, is_pruned, snapshots
from dynamics.maintenance import check
from dynamics.store.store import publish, table_digests
from studies.faults.cases import CASES, Case
from studies.faults.injection import Fault, Outcome, in_a_child

FAULTS = (Fault.KILL, Fault.TORN, Fault.EIO, Fault.FULL, Fault.STAYS_FULL)


@dataclass(frozen=True)
class Tried:
    """One fault at one call of one case."""

    case: str
    fault: Fault
    call: int
    acknowledged: int
    wrong: tuple[str, ...]
    """What is not as it must be, in words."""


def calls(case: Case, folder: Path) -> int:
    """How many calls of a case change something."""
    with _started(case, folder) as place:
        return in_a_child(lambda told: case.work(place, told), place).calls


def sweep(case: Case, folder: Path, every: int = 1) -> Iterator[Tried]:
    """Each ``every``-th call fails in each way."""
    with _started(case, folder / "whole") as place:
        whole = in_a_child(lambda told: case.work(place, told))
        assert not whole.said, whole.said
        wanted = content(place)
    for call in range(1, calls(case, folder / "counted") + 1, every):
        for fault in FAULTS:
            with _started(case, folder / "tried") as place:
                yield _tried(case, place, fault, call, wanted)


@contextmanager
def _started(case: Case, folder: Path) -> Iterator[Path]:
    template = folder.parent / f"template {case.name}"
    if not template.exists():
        template.mkdir(parents=True)
        made = in_a_child(lambda told: case.prepare(template))
        assert not made.said, made.said
    shutil.copytree(template, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _tried(case: Case, place: Path, fault: Fault, call: int, wanted: dict[str, str]) -> Tried:
    broken = in_a_child(lambda told: case.work(place, told), place, call, fault)
    wrong = [] if case.name == "repair" else _told(lambda tell: _held(place, broken, tell))
    again = in_a_child(lambda told: case.work(place, told))
    if again.said:
        wrong.append(f"again: {again.said}")
    wrong += _told(lambda tell: _same(place, wanted, tell))
    return Tried(case.name, fault, call, len(broken.acknowledged), tuple(wrong))


def _told(look: Callable[[Callable[[str], None]], None]) -> list[str]:
    """What a child has to say, and that it failed."""
    outcome = in_a_child(look)
    return [*outcome.acknowledged, *([outcome.said] if outcome.said else [])]


def _held(place: Path, broken: Outcome, tell: Callable[[str], None]) -> None:
    """The run opens, nothing in it is damaged, and what was acknowledged is there."""
    if not (place / "run" / "run.json").exists():
        if broken.acknowledged:
            tell(f"acknowledged, and there is no run: {broken.acknowledged}")
        return
    run = RunDirectory.open(place / "run")
    for finding in check(run):
        tell(f"{finding.fact} -> {finding.remedy}")
    for line in broken.acknowledged:
        if not _there(run, line):
            tell(f"acknowledged and lost: {line}")


def _there(run: RunDirectory, line: str) -> bool:
    match line.split():
        case ["snapshots", history, step]:
            from dynamics.capture.reading import fingerprint
            from studies.faults.cases import model_at

            weights = fingerprint(model_at(int(step), int(history)))
            return all(
                any((r.step, r.fingerprint) == (int(step), weights) for r in all_snapshots(run, site))
                for site in ("0", "1")
            )
        case ["shared", step]:
            return any(record.step == int(step) for record in snapshots(run, "shared"))
        case ["sae", step]:
            return any(run.saes("0").glob(f"chain/step_{int(step):08d}.seed0/{COMMIT}"))
        case ["result", number]:
            return int(number) == 0 or any(run.tracking("0").glob(f"*/{COMMIT}"))
        case ["published"]:
            return run.history.is_file() and not publish(run)
        case ["pruned"]:
            return all(is_pruned((run.path / r.path).parent) for r in snapshots(run, "0"))
    return True


def _same(place: Path, wanted: dict[str, str], tell: Callable[[str], None]) -> None:
    found = content(place)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            state = "differs" if name in wanted and name in found else "is missing" if name in wanted else "is too much"
            tell(f"done again, {name} {state}")
    for finding in check(RunDirectory.open(place / "run")):
        tell(f"done again, {finding.fact}")


def content(place: Path) -> dict[str, str]:
    """What the current timeline holds: a digest of each snapshot, SAE and result, and of each table of rows."""
    run = RunDirectory.open(place / "run")
    found = {}
    for site in run.sites():
        for record in snapshots(run, site):
            folder = (run.path / record.path).parent
            files = read_commit(folder)["files"]
            found[f"snapshot {site} {record.step}"] = f"{record.fingerprint} {files} {is_pruned(folder)}"
        for record in sae_records(
            run, site
        ):  # trained again, an SAE is the same but for the last digits of its weights
            found[f"sae {site} {record.arm} {record.seed} {record.step}"] = f"{record.fvu:.3f} {record.l0:.2f}"
        for path in sorted((run.path / "tracking").glob(f"*/*/*/{COMMIT}")):
            found[run.relative(path)] = str(read_commit(path.parent)["files"])
    if run.history.is_file():
        tables = table_digests(run.history)
        exact = tables.keys() - {"meta", "published", "saes", "latents", "contexts", "geometry"}
        found |= {f"rows {name}": str(table if name in exact else table[0]) for name, table in tables.items()}
    return found


def sweep_all(folder: Path, every: int = 1) -> Iterator[Tried]:
    """Every case."""
    for case in CASES:
        yield from sweep(case, folder, every)
