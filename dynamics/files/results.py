"""What the tracking stage found, on disk: one Parquet file a table, one folder for each state of the inputs."""

from __future__ import annotations

import io
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dynamics.files.commits import COMMIT, commit, read_commit, read_file
from dynamics.files.layout import BRANCH, RunDirectory
from dynamics.files.saes import parquet_bytes

KEPT = 2
"""Results kept for a site: the newest, and the one before, which a publication may be reading."""


@dataclass(frozen=True, kw_only=True)
class TrackingRecord:
    """One committed result of tracking a site."""

    site: str
    inputs: str
    """Digest of everything that it was computed from."""
    order: int
    """Counts up with every result of the site."""
    tables: tuple[str, ...]
    notes: tuple[str, ...]
    branch: str = BRANCH
    path: Path
    """Its folder."""


def write_tracking(
    run: RunDirectory,
    site: str,
    inputs_digest: str,
    tables: dict[str, pa.Table],
    notes: list[str],
    branch: str = BRANCH,
) -> TrackingRecord:
    """Commit the tables of a site; results that they replace are removed, but for the last one.

    Where the newest result has these inputs already, nothing happens.
    """
    newest = tracking_record(run, site, branch)
    if newest is not None and newest.inputs == inputs_digest:
        return newest
    folder = run.tracking(site, branch) / inputs_digest
    _remove(folder)  # the inputs went back to an earlier state: its result becomes the newest again
    facts = {
        "branch": branch,
        "site": site,
        "inputs": inputs_digest,
        "order": 0 if newest is None else newest.order + 1,
        "tables": sorted(tables),
        "notes": list(notes),
    }
    commit(folder, facts, {f"{name}.parquet": parquet_bytes(table) for name, table in sorted(tables.items())})
    for record in _records(run, site, branch)[:-KEPT]:
        _remove(record.path)
    return _read(folder)


def _remove(folder: Path) -> None:
    # The commit record goes first: what is half removed does not exist.
    (folder / COMMIT).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def tracking_record(run: RunDirectory, site: str, branch: str = BRANCH) -> TrackingRecord | None:
    """The newest committed result of a site, or None."""
    records = _records(run, site, branch)
    return records[-1] if records else None


def _records(run: RunDirectory, site: str, branch: str) -> list[TrackingRecord]:
    folder, records = run.tracking(site, branch), []
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # nothing is committed there, or somebody removes it just now
            records.append(_read(path))
    return sorted(records, key=lambda record: (record.order, record.inputs))


def _read(folder: Path) -> TrackingRecord:
    facts = read_commit(folder)
    return TrackingRecord(
        site=facts["site"],
        inputs=facts["inputs"],
        order=facts["order"],
        tables=tuple(facts["tables"]),
        notes=tuple(facts["notes"]),
        branch=facts["branch"],
        path=folder,
    )


def load_tables(record: TrackingRecord) -> dict[str, pa.Table]:
    """The tables of a result, by name.

    Raises:
        DamagedError: if a file is missing or damaged.
    """
    return {name: pq.read_table(io.BytesIO(read_file(record.path, f"{name}.parquet"))) for name in record.tables}
