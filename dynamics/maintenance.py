"""Looking after a run directory: is everything whole, what can be put right, and what can go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynamics.answers import counted
from dynamics.files.checking import Damage, damages, put_back, set_aside
from dynamics.files.commits import DamagedError
from dynamics.files.layout import RunDirectory
from dynamics.files.pruning import prune as prune_files
from dynamics.files.saes import sae_records
from dynamics.files.settings import only_recorder
from dynamics.files.snapshots import snapshots
from dynamics.pipeline.plan import remaining
from dynamics.store.store import build, differences, publish


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run, and what was or can be done about it."""

    fact: str
    remedy: str
    settled: bool = False
    """Whether it was put right, or put aside so that it can be made again."""


def check(run: RunDirectory) -> Iterator[Finding]:
    """Read everything: each file against its digest and its place, each row of the database against its file."""
    found = [Finding(damage.reason, damage.remedy) for damage in damages(run)]
    yield from found or _inconsistent(run)


def _orphans(run: RunDirectory) -> Iterator[Damage]:
    for site in run.sites():
        shown = {record.step for record in snapshots(run, site)}
        for record in sae_records(run, site):
            if record.arm != "null" and record.step not in shown:
                reason = f"{record.path} explains a snapshot that is gone"
                yield Damage((run.path / record.path).parent, reason, "it is left out of everything", repairable=True)


def _inconsistent(run: RunDirectory) -> Iterator[Finding]:
    yield from (Finding(orphan.reason, orphan.remedy) for orphan in _orphans(run))
    for difference in differences(run):
        yield Finding(difference, "`dynamics rebuild` makes it again from the files")


def repair(run: RunDirectory) -> Iterator[Finding]:
    """Move what is damaged into the folder ``damaged``, so that it can be made again, and make the database anew.

    Interrupted, it can be run again.
    """
    broken = list(damages(run))
    aside = {damage.path: set_aside(run, damage) for damage in broken if damage.repairable}
    back = dict(put_back(run))
    for damage in broken:
        kept = aside.get(damage.path)
        yield _repaired(damage, kept, back.get(kept) if kept else None)
    for orphan in list(_orphans(run)):
        yield _repaired(orphan, set_aside(run, orphan), None)
    if len(aside) == len(broken):
        yield from _renewed(run)


def _repaired(damage: Damage, kept: Path | None, place: Path | None) -> Finding:
    if kept is None:
        return Finding(damage.reason, damage.remedy)
    moved = f"is back at {place}" if place else f"moved to {kept}; {damage.remedy}"
    return Finding(damage.reason, moved, settled=True)


def _renewed(run: RunDirectory) -> Iterator[Finding]:
    """The database as the files are now."""
    differing = differences(run)
    if differing:
        build(run)
    elif run.history.is_file():
        publish(run)
    for fact in differing:
        yield Finding(fact, "made anew from the files", settled=True)


def prune(run: RunDirectory) -> int:
    """Drop the raw activations of a run that is finished, for good. Returns the bytes that it freed.

    Raises:
        ValueError: if jobs are still to be done, which need them.
        RuntimeError: if the run is being recorded.
        DamagedError: if a file is damaged.
    """
    with only_recorder(run):
        if left := remaining(run):
            raise ValueError(
                f"{run.path} has {counted(left, 'job')} to be done, which need the activations; "
                f"`dynamics analyze {run.path}` first"
            )
        for damage in damages(run):
            raise DamagedError(damage.reason)
        return prune_files(run)
