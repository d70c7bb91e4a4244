"""The rows of a run: from its files into the tables of schema.sql."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from dynamics.files import (
    RunDirectory,
    SaeRecord,
    SnapshotRecord,
    TrackingRecord,
    load_contexts,
    load_latents,
    load_probe,
    load_tables,
    sae_records,
    sha256,
    snapshots,
    tracking_record,
)
from dynamics.files.branches import Branch
from dynamics.files.commits import COMMIT
from dynamics.files.importing_saes import notes_on_imported
from dynamics.files.layout import BRANCH
from dynamics.store.database import sentence
from dynamics.store.text import surroundings, varchar

TRACKED = (
    "pairs",
    "links",
    "event_candidates",
    "feature_history",
    "tracks",
    "onsets",
    "transitions",
    "change",
    "population",
    "resolution",
)
"""Tables that the tracking stage writes."""

SNAPSHOTS = ("branch", "site", "step", "rows", "d_in", "dtype", "probe", "fingerprint", "path")
SAES = (
    *("branch", "site", "step", "arm", "seed", "architecture", "n_latents", "k"),
    *("fvu", "l0", "dead", "revived", "restarted", "path"),
)


class StaleError(RuntimeError):
    """Rows are in whose files are gone or others: the database has to be made anew."""


@dataclass(frozen=True)
class Inventory:
    """Everything that is committed in a run, and the digest of each commit record by path."""

    snapshots: tuple[SnapshotRecord, ...]
    saes: tuple[SaeRecord, ...]
    tracking: tuple[TrackingRecord, ...]
    branches: dict[str, Branch]
    digests: dict[str, str]

    @classmethod
    def of(cls, run: RunDirectory) -> Inventory:
        """What is committed now.

        Raises:
            DamagedError: if a commit record does not parse.
        """
        branches = run.branches()
        places = [(branch, site) for branch in (BRANCH, *branches) for site in run.sites(branch)]
        shots = [r for branch, site in places for r in snapshots(run, site, branch) if r.branch == branch]
        saes = [r for branch, site in places for r in sae_records(run, site, branch=branch) if r.branch == branch]
        results = dict(found for branch, site in places for found in _newest(run, site, branch))
        folders = [*map(folder_of, shots), *map(folder_of, saes)]
        digests = {folder: sha256(run.path / folder / COMMIT) for folder in folders}
        digests |= {run.relative(record.path): digest for record, digest in results.items()}
        digests |= {f"probes/{probe}": probe for probe in {record.probe for record in shots}}
        return cls(tuple(shots), tuple(saes), tuple(results), branches, digests)


def _newest(run: RunDirectory, site: str, branch: str) -> Iterator[tuple[TrackingRecord, str]]:
    """The newest result of tracking a site, if there is one, with the digest of its commit record."""
    while (record := tracking_record(run, site, branch)) is not None:
        with suppress(FileNotFoundError):  # a newer one took its place just now
            yield record, sha256(record.path / COMMIT)
            return


def folder_of(record: SnapshotRecord | SaeRecord) -> str:
    """The folder of a record's files, from the run directory."""
    return str(PurePosixPath(record.path).parent)


def add_rows(connection: duckdb.DuckDBPyConnection, run: RunDirectory, inventory: Inventory) -> None:
    """Bring the tables to what ``inventory`` says, reading the files of what is new only.

    Raises:
        StaleError: if rows are in whose files are gone or others.
        DamagedError: if a file is damaged.
    """
    known = dict(connection.execute("select path, digest from raw.published").fetchall())
    _check_current(known, inventory)
    _add_probes(
        connection, run, sorted(path for path in inventory.digests.keys() - known if path.startswith("probes/"))
    )
    _add_saes(connection, run, [record for record in inventory.saes if folder_of(record) not in known])
    for result in inventory.tracking:
        if run.relative(result.path) not in known:
            _replace_tracking(connection, result)
    _replace_records(connection, inventory)


def _check_current(known: dict[str, str], inventory: Inventory) -> None:
    for path, digest in known.items():
        now = inventory.digests.get(path)
        # The result of an earlier tracking is removed by a later one, whose rows take the place of its rows.
        if now != digest and not (now is None and path.startswith("tracking/") and _superseded(path, inventory)):
            raise StaleError(f"{path} is {'gone' if now is None else 'another'} since its rows were written")


def _superseded(path: str, inventory: Inventory) -> bool:
    site = PurePosixPath(path).parent
    return any(PurePosixPath(other).parent == site for other in inventory.digests)


def _add_probes(connection: duckdb.DuckDBPyConnection, run: RunDirectory, paths: list[str]) -> None:
    for digest in (PurePosixPath(path).name for path in paths):
        rows = load_probe(run, digest)
        index = np.arange(len(rows.sequence))
        table = {"probe": [digest] * len(index), "row": index, "sequence": rows.sequence, "position": rows.position}
        if rows.text is not None:
            text = [varchar(entry) for entry in rows.text]
            before, after = surroundings(rows.sequence, rows.position, text)
            table |= {
                name: pa.array(column, pa.string())
                for name, column in (("text", text), ("before", before), ("after", after))
            }
        insert(connection, "probe_rows", pa.table(table))
        for concept, mask in sorted(rows.masks.items()):
            kept = index[mask]
            insert(connection, "row_masks", pa.table({"row": kept}), probe=digest, concept=varchar(concept))


def _add_saes(connection: duckdb.DuckDBPyConnection, run: RunDirectory, records: list[SaeRecord]) -> None:
    for record in records:
        place = {"branch": record.branch, "site": record.site, "step": record.step}
        insert(connection, "latents", load_latents(run, record), **place, arm=record.arm, seed=record.seed)
        if record.arm == "chain":
            insert(connection, "contexts", load_contexts(run, record), **place)


def _replace_tracking(connection: duckdb.DuckDBPyConnection, result: TrackingRecord) -> None:
    place = {"branch": result.branch, "site": result.site}
    for name in TRACKED:
        connection.execute(f"delete from raw.{name} where branch = $branch and site = $site", place)
    connection.execute("delete from raw.notes where branch = $branch and site = $site and stage = 'tracking'", place)
    tables = load_tables(result)
    if unknown := sorted(tables.keys() - set(TRACKED)):
        raise ValueError(f"{result.path} holds tables that there are no columns for: {', '.join(unknown)}")
    for name, table in sorted(tables.items()):
        insert(connection, name, table, **place)
    insert(connection, "notes", pa.table({"note": pa.array(result.notes, pa.string())}), **place, stage="tracking")


def _replace_records(connection: duckdb.DuckDBPyConnection, inventory: Inventory) -> None:
    paths = sorted(inventory.digests)
    tables = {
        "checkpoints": checkpoints(inventory.snapshots),
        "snapshots": columns(inventory.snapshots, SNAPSHOTS),
        "saes": columns(inventory.saes, SAES),
        "geometry": geometry(inventory.saes),
        "branches": branches(inventory.branches),
        "published": pa.table({"path": paths, "digest": [inventory.digests[path] for path in paths]}),
    }
    for name, table in tables.items():
        connection.execute(f"delete from raw.{name}")
        insert(connection, name, table)
    connection.execute("delete from raw.notes where stage = 'saes'")
    insert(connection, "notes", notes(inventory.saes), stage="saes")


def notes(records: Iterable[SaeRecord]) -> pa.Table:
    """What is to be known of the chains whose SAEs were imported."""
    chains: dict[tuple[str, str], list[SaeRecord]] = {}
    for record in records:
        if record.arm == "chain":
            chains.setdefault((record.branch, record.site), []).append(record)
    rows = [
        (*place, note)
        for place, chain in chains.items()
        for note in notes_on_imported([r for r in chain if r.imported], [r.step for r in chain if not r.imported])
    ]
    return pa.table(
        {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(("branch", "site", "note"))}
    )


def checkpoints(records: Iterable[SnapshotRecord]) -> pa.Table:
    """One row a branch and step, with what the first site that knows it says of epoch, samples and loss."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        row = found.setdefault((record.branch, record.step), {"branch": record.branch, "step": record.step})
        for name in ("epoch", "samples", "loss"):
            row[name] = getattr(record, name) if row.get(name) is None else row[name]
    names = ("branch", "step", "epoch", "samples", "loss")
    return pa.table({name: [row[name] for row in found.values()] for name in names})


def branches(found: Mapping[str, Branch]) -> pa.Table:
    """One row a branch; the first has neither parent nor fork."""
    listed = {BRANCH: None, **found}
    columns = {
        "branch": pa.array(listed, pa.string()),
        "parent": pa.array([each and each.parent for each in listed.values()], pa.string()),
        "fork": pa.array([each and each.fork for each in listed.values()], pa.int64()),
    }
    return pa.table(columns)


def geometry(records: Iterable[SaeRecord]) -> pa.Table:
    """What was measured on the activations when the chain's SAE was made."""
    chain = [record for record in records if record.arm == "chain" and record.geometry]
    table = columns(chain, ("branch", "site", "step"))
    for name in ("scale", "effective_rank", "top_share", "procrustes_residual"):
        table = table.append_column(name, pa.array([record.geometry.get(name) for record in chain], pa.float64()))
    return table


def columns(records: Iterable[Any], names: Iterable[str]) -> pa.Table:
    """The named fields of records as a table."""
    listed = list(records)
    return pa.table({name: [getattr(record, name) for record in listed] for name in names})


def insert(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table, **constant: object) -> None:
    """Add ``rows`` to ``raw.<name>`` by column name; ``constant`` gives columns that are the same in every row.

    Raises:
        ValueError: if the table has no such columns, or cannot hold their values.
    """
    fixed = "".join(f"${column} as {column}, " for column in constant)
    connection.register("incoming", rows)
    try:
        connection.execute(f"insert into raw.{name} by name select {fixed}* from incoming", constant)
    except (duckdb.BinderException, duckdb.ConversionException, duckdb.ConstraintException) as error:
        raise ValueError(f"the rows do not fit into raw.{name}: {sentence(error)}") from None
    connection.unregister("incoming")
