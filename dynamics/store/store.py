"""The published history: made from the files of a run, brought up to date, renamed into place."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
from filelock import BaseFileLock

from dynamics.answers import counted
from dynamics.files import DamagedError, RunDirectory, load_level, lock
from dynamics.files.atomic import put_in_place
from dynamics.files.layout import BRANCH
from dynamics.store import database
from dynamics.store.database import sentence
from dynamics.store.queries import SqlError, connect, query
from dynamics.store.rows import Inventory, StaleError, add_rows, insert
from dynamics.store.scalars import write_scalars

__all__ = ["SqlError", "build", "connect", "publish", "query"]

Made = TypeVar("Made")
PRIVATE = ".history-"
"""How the names of copies begin that are not published yet."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
log = logging.getLogger("dynamics")


@database.interruptible()
def build(run: RunDirectory) -> None:
    """Make the history anew from the files of the run.

    A history that cannot be read is kept beside it as ``history.duckdb.bad-<time>``.

    Raises:
        DamagedError: if a committed file is damaged; the history stays as it is.
        OSError: if the disk is full; the history stays as it is.
        RuntimeError: if a newer version made the history.
    """
    with _writing(run):
        damaged = run.history.is_file() and _state(run.history) is None
        _from_inventory(run, lambda inventory: _build(run, inventory, aside=damaged))


@database.interruptible()
def publish(run: RunDirectory) -> bool:
    """Add what was committed since the last time, and make it visible at once.

    Readers see the history of before or of after, never anything between. A history that is damaged, or was made with
    other tables, is moved aside and made anew.

    Returns:
        Whether there was anything to do.

    Raises:
        DamagedError: if a committed file is damaged; the history stays as it is.
        OSError: if the disk is full; the history stays as it is.
        RuntimeError: if a newer version made the history.
    """
    with _writing(run):
        return _from_inventory(run, lambda inventory: _publish(run, inventory))


def bring_up_to_date(run: RunDirectory) -> None:
    """Publish where nothing is published, or where another version did so, whose views have other columns.

    Where that cannot be written, the views stay as they are.
    """
    if not run.history.exists():
        publish(run)
    elif _has_other_views(run.history):
        with suppress(OSError):
            publish(run)


def _has_other_views(history: Path) -> bool:
    """Of an earlier or an equal version; a newer or damaged history is left alone."""
    try:
        with database.reader(history) as connection:
            meta = dict(connection.execute("select key, value from raw.meta").fetchall())
        older = int(meta["format"]) <= database.FORMAT
    except (duckdb.Error, KeyError, ValueError):
        return False
    return older and meta.get("tables") != database.tables_digest()


def _publish(run: RunDirectory, inventory: Inventory) -> bool:
    state = _state(run.history) if run.history.is_file() else None
    if state == _wanted(run, inventory):
        return False
    damaged = state is None and run.history.is_file()
    if state is not None:
        try:
            _make(run, inventory, base=run.history)
            return True
        except StaleError:
            pass
        except duckdb.Error:
            damaged = True
    _build(run, inventory, aside=damaged)
    return True


def _from_inventory(run: RunDirectory, made: Callable[[Inventory], Made]) -> Made:
    """What ``made`` makes of what is committed; again, where a result was replaced while it was read."""
    while True:
        inventory = Inventory.of(run)
        try:
            return made(inventory)
        except (DamagedError, FileNotFoundError):
            if Inventory.of(run).digests == inventory.digests:
                raise


def _writing(run: RunDirectory) -> BaseFileLock:
    return lock(run.locks / "publish.lock")


def _build(run: RunDirectory, inventory: Inventory, *, aside: bool) -> None:
    _make(run, inventory, base=None, aside=aside)


def _make(run: RunDirectory, inventory: Inventory, *, base: Path | None, aside: bool = False) -> None:
    with _private(run) as private:
        _fill(private, run, inventory, base)
        write_scalars(private, run.scalars)
        if aside:
            _keep_aside(run.history)
        put_in_place(private, run.history)


@contextmanager
def _private(run: RunDirectory) -> Iterator[Path]:
    """The name of a database that nobody else sees; what is left of it at the end is removed."""
    for left in run.path.glob(PRIVATE + "*"):  # by a writer that was killed: we hold the lock
        left.unlink(missing_ok=True)
    private = run.path / f"{PRIVATE}{secrets.token_hex(4)}.duckdb"
    try:
        yield private
    except duckdb.Error as error:
        raise _full_disk(error, run.history) or error from None
    finally:
        for left in (private, private.with_name(private.name + ".wal")):
            left.unlink(missing_ok=True)


def _fill(private: Path, run: RunDirectory, inventory: Inventory, base: Path | None) -> None:
    if base is None:
        database.create(private)
    else:
        shutil.copyfile(base, private)
    with database.writer(private) as connection:
        connection.execute("begin")
        add_rows(connection, run, inventory)
        _write_meta(connection, run, inventory)
        connection.execute("commit")
        connection.execute("checkpoint history")


@database.interruptible()
def differences(run: RunDirectory) -> list[str]:
    """What the published rows differ in from those that the files give, a sentence each; none where it is behind.

    Raises:
        DamagedError: if a committed file is damaged.
        RuntimeError: if a newer version made the history.
    """
    if not run.history.is_file():
        return []
    with _writing(run), _private(run) as private:
        state, inventory = _state(run.history), Inventory.of(run)
        if state is None:
            return [f"{run.history} is damaged, or was made by another version"]
        if state != _wanted(run, inventory):
            return []
        _fill(private, run, inventory, None)
        wanted = table_digests(private)
        try:
            found = table_digests(run.history)
        except duckdb.Error as error:
            return [f"{run.history} is damaged: {sentence(error)}"]
    return [
        f"{run.history} is damaged: table {name} has {counted(found[name][0], 'row')}, the files give {rows}"
        + (", others" if found[name][0] == rows else "")
        for name, (rows, digest) in wanted.items()
        if found[name] != (rows, digest)
    ]


def table_digests(path: Path) -> dict[str, tuple[int, int]]:
    """Of each table the number of its rows and a digest of them, in whatever order; but for what tells the time."""
    with database.reader(path) as connection:
        names = connection.execute("select table_name from duckdb_tables() where schema_name = 'raw' order by all")
        digest = "select count(*), coalesce(sum(hash(t::varchar)::hugeint), 0) from raw.{} t {}"
        return {
            name: connection.execute(
                digest.format(name, "where key not in ('published_at', 'duckdb')" if name == "meta" else "")
            ).fetchall()[0]
            for (name,) in names.fetchall()
        }


def _full_disk(error: duckdb.Error, history: Path) -> OSError | None:
    """The system's own error where that is what DuckDB tells of: it is no sign of a damaged history."""
    code = next((code for code in FULL if os.strerror(code) in str(error)), None)
    return OSError(code, os.strerror(code), str(history)) if code is not None else None


def _keep_aside(history: Path) -> None:
    kept = history.with_name(f"{history.name}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}")
    log.warning("%s is damaged or of another version: kept as %s, made anew from the files", history, kept.name)
    try:
        os.link(history, kept)  # the name stays taken until the new history is renamed over it
    except OSError:
        os.replace(history, kept)


def _wanted(run: RunDirectory, inventory: Inventory) -> str:
    branches = {name: asdict(branch) for name, branch in inventory.branches.items()}
    content = [sorted(inventory.digests.items()), branches, load_level(run)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _state(history: Path) -> str | None:
    """What a history was made from; None where it is damaged or has other tables.

    Raises:
        RuntimeError: if a newer version made it.
    """
    try:
        with database.reader(history) as connection:
            meta = dict(connection.execute("select key, value from raw.meta").fetchall())
        made_by = int(meta["format"])
    except (duckdb.Error, KeyError, ValueError):
        return None
    if made_by > database.FORMAT:
        raise RuntimeError(
            f"{history} was made by a newer version (format {made_by}, this one writes {database.FORMAT}): "
            "pip install -U dynamics"
        )
    return meta.get("state") if meta.get("tables") == database.tables_digest() else None


def _write_meta(connection: duckdb.DuckDBPyConnection, run: RunDirectory, inventory: Inventory) -> None:
    meta = {
        "branch": [BRANCH, *inventory.branches][-1],
        "fdr": repr(load_level(run)),
        "format": str(database.FORMAT),
        "tables": database.tables_digest(),
        "run_id": run.run_id,
        "state": _wanted(run, inventory),
        "duckdb": duckdb.__version__,
        "published_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    connection.execute("delete from raw.meta")
    insert(connection, "meta", pa.table({"key": list(meta), "value": list(meta.values())}))
