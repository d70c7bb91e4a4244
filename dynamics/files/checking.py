"""Whether everything that was committed is still what it was and where it was, and putting aside what is not."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynamics.files.atomic import flush_folder, make_folder
from dynamics.files.branches import RECORD
from dynamics.files.commits import COMMIT, DamagedError, is_committed, read_commit, read_file
from dynamics.files.layout import BRANCH, RunDirectory, folder_name
from dynamics.files.probes import load_probe
from dynamics.files.settings import load_level, load_recording, load_settings
from dynamics.files.snapshots import is_pruned

SNAPSHOT, SAE, RESULT = "snapshots/*/*/*", "saes/*/*/*/*", "tracking/*/*/*"
AGAIN = "`dynamics analyze` makes it again"


@dataclass(frozen=True)
class Damage:
    """Something that was committed and is no longer whole, or no longer in its place."""

    path: Path
    """A folder with a commit record, or a file."""
    reason: str
    """One sentence that names the file."""
    remedy: str
    """What becomes of it once it is put aside; where it cannot be, what to do."""
    repairable: bool
    """Whether the run can go on without it. It cannot without a probe or a record of a branch."""


def damages(run: RunDirectory) -> Iterator[Damage]:
    """Read every committed file of a run and say which are missing, damaged, or what belongs elsewhere."""
    yield from _damaged_facts(run)
    for pattern, remedy in (
        (SNAPSHOT, "nothing here can make it again: its step is left out, unless that is trained or loaded once more"),
        (SAE, AGAIN),
        (RESULT, AGAIN),
    ):
        for record in sorted(run.path.glob(f"{pattern}/{COMMIT}")):
            if reason := _reason(run, record.parent):
                yield Damage(record.parent, reason, remedy, repairable=True)
    for path in sorted((run.path / "probes").glob("*.safetensors")):
        if reason := _failure(lambda path=path: load_probe(run, path.stem)):  # type: ignore[misc]
            yield Damage(path, reason, "restore it from a copy: every snapshot refers to it", repairable=False)


def _damaged_facts(run: RunDirectory) -> Iterator[Damage]:
    restore, again = "restore it from a copy, or write it as the message says", "the default holds from now on"
    facts: list[tuple[str, Callable[[RunDirectory], Any], str, bool]] = [
        ("run.json", lambda run: run.run_id, restore, False),
        ("settings.json", load_settings, restore, False),
        ("level.json", load_level, again, True),
        ("recording.json", load_recording, again, True),
    ]
    for name, read, remedy, repairable in facts:
        if reason := _failure(lambda read=read: read(run)):  # type: ignore[misc]
            yield Damage(run.path / name, reason, remedy, repairable)
    for path in sorted((run.path / "snapshots").glob(f"*/{RECORD}")):
        if reason := _failure(run.branches):
            yield Damage(path, reason, restore, repairable=False)
            return


def _failure(read: Callable[[], object]) -> str | None:
    try:
        read()
    except RuntimeError as error:
        return str(error)
    return None


def _reason(run: RunDirectory, folder: Path) -> str | None:
    try:
        record = read_commit(folder)
        for name in () if is_pruned(folder) else record["files"]:
            read_file(folder, name, record)
    except FileNotFoundError:  # a result that a newer one took the place of just now
        return None
    except DamagedError as error:
        return str(error) if is_committed(folder) else None
    return _misplaced(run, folder, record)


def _misplaced(run: RunDirectory, folder: Path, record: dict[str, Any]) -> str | None:
    """What a folder holds instead of what its name says: two that were swapped are both whole."""
    try:
        place = _place(run, folder, record)
    except (KeyError, ValueError, TypeError):
        return f"{folder / COMMIT} is damaged: it does not say what it is of"
    if place != folder:
        return f"{folder} holds what belongs to {run.relative(place)}"
    if record.get("probe") and not run.probe(record["probe"]).is_file():
        return f"{folder} was taken on probe {record['probe'][:8]}, which is missing"
    return None


def _place(run: RunDirectory, folder: Path, record: dict[str, Any]) -> Path:
    site, branch = record["site"], record.get("branch", BRANCH)
    match folder.relative_to(run.path).parts[0]:
        case "snapshots":
            return run.snapshot(site, record["step"], branch)
        case "saes":
            name = f"step_{record['step']:08d}.seed{record['seed']}"
            return run.saes(site, branch) / folder_name(record["arm"]) / name
    return run.tracking(site, branch) / str(record["inputs"])


def set_aside(run: RunDirectory, damage: Damage) -> Path:
    """Move what is damaged into the folder ``damaged`` of the run, where it no longer counts as committed.

    Returns:
        Where it is now.

    Raises:
        ValueError: if the run cannot go on without it.
    """
    if not damage.repairable:
        raise ValueError(f"{damage.path} cannot be made again: {damage.remedy}")
    kept = run.path / "damaged" / f"{run.relative(damage.path)}.{secrets.token_hex(4)}"
    make_folder(kept.parent)
    os.replace(damage.path, kept)
    flush_folder(damage.path.parent)
    return kept


def put_back(run: RunDirectory) -> Iterator[tuple[Path, Path]]:
    """Move what was put aside to where it belongs, where it is whole and nothing is there: folders had been swapped.

    Yields:
        Where it was put aside, and where it is now.
    """
    folders = [path.parent for path in (run.path / "damaged").rglob(COMMIT)]
    for kept in sorted(folders, reverse=True):  # snapshots before the SAEs that explain them
        place = _free_place(run, kept)
        if place is not None:
            make_folder(place.parent)
            os.replace(kept, place)
            flush_folder(place.parent)
            yield kept, place


def _free_place(run: RunDirectory, kept: Path) -> Path | None:
    try:
        record = read_commit(kept)
        for name in record["files"]:
            read_file(kept, name, record)
        place = _place(run, run.path / kept.relative_to(run.path / "damaged"), record)
    except (RuntimeError, OSError, KeyError, ValueError, TypeError):
        return None
    return None if place.exists() or _is_orphan(run, record) else place


def _is_orphan(run: RunDirectory, record: dict[str, Any]) -> bool:
    """Whether it is an SAE whose snapshot is not there."""
    explains = record.get("arm") in ("chain", "seed")
    return explains and not is_committed(run.snapshot(record["site"], record["step"], record.get("branch", BRANCH)))
