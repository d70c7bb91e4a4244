"""Whether everything that was committed is still what it was, and putting aside what is not."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynamics.files.atomic import flush_folder, make_folder
from dynamics.files.commits import COMMIT, DamagedError, is_committed, read_commit, read_file
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import load_probe

COMMITTED = ("snapshots/*/*/*", "saes/*/*/*/*", "tracking/*/*/*")


@dataclass(frozen=True)
class Damage:
    """Something that was committed and is no longer whole."""

    path: Path
    """A folder with a commit record, or the file of a probe."""
    reason: str
    """One sentence that names the file."""
    repairable: bool
    """Whether the run can go on without it. It cannot without a probe."""


def damages(run: RunDirectory) -> Iterator[Damage]:
    """Read every committed file of a run and say which are missing or not what their commit record says."""
    for pattern in COMMITTED:
        for record in sorted(run.path.glob(f"{pattern}/{COMMIT}")):
            if reason := _reason(record.parent):
                yield Damage(record.parent, reason, repairable=True)
    for path in sorted((run.path / "probes").glob("*.safetensors")):
        try:
            load_probe(run, path.stem)
        except DamagedError as error:
            yield Damage(path, str(error), repairable=False)


def _reason(folder: Path) -> str | None:
    try:
        record = read_commit(folder)
        for name in record["files"]:
            read_file(folder, name, record)
    except FileNotFoundError:  # a result that a newer one took the place of just now
        return None
    except DamagedError as error:
        return str(error) if is_committed(folder) else None
    return None


def set_aside(run: RunDirectory, damage: Damage) -> Path:
    """Move what is damaged into the folder ``damaged`` of the run, where it no longer counts as committed.

    Returns:
        Where it is now.

    Raises:
        ValueError: if the run cannot go on without it.
    """
    if not damage.repairable:
        raise ValueError(f"{damage.path} cannot be made again: every snapshot of the run refers to it; restore a copy")
    kept = run.path / "damaged" / f"{run.relative(damage.path)}.{secrets.token_hex(4)}"
    make_folder(kept.parent)
    os.replace(damage.path, kept)
    flush_folder(damage.path.parent)
    return kept
