"""Databases as files: made, opened for the one writer, opened for readers."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import duckdb

FORMAT = 1
"""Version of the database. One of a newer version is left alone."""
STORAGE = "v1.2.0"
"""Storage version that every supported DuckDB reads."""


def create(path: Path) -> None:
    """Make a database without rows at ``path``."""
    with _blank() as connection:
        connection.execute(f"attach {literal(path)} as history (storage_version '{STORAGE}')")
        connection.execute("use history")
        for sql in _tables():
            connection.execute(sql)


def tables_digest() -> str:
    """Digest of the tables and views: a database with another one is made anew."""
    return hashlib.sha256("".join(_tables()).encode()).hexdigest()


def _tables() -> list[str]:
    return [files("dynamics.store").joinpath(name).read_text("utf-8") for name in ("schema.sql", "views.sql")]


def writer(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that writes to the database at ``path``; a private copy, never one that is published."""
    connection = _blank()
    connection.execute(f"attach {literal(path)} as history; use history")
    return connection


def reader(path: Path, memory: int | None = None) -> duckdb.DuckDBPyConnection:
    """A connection that reads the database at ``path`` as it is now, and can reach nothing else.

    Args:
        path: the database.
        memory: most bytes that DuckDB may take, without swapping to files; None is most of the machine's.

    Raises:
        duckdb.Error: if the file is no database.
    """
    # DuckDB reads the header by one handle and the blocks by another: a history renamed into place between the two
    # gives the header of one state with the blocks of the next.
    while True:
        before = _identity(path)
        try:
            connection = _attached(path, memory)
        except duckdb.Error:
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return connection
            connection.close()


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _attached(path: Path, memory: int | None) -> duckdb.DuckDBPyConnection:
    # Attached to an empty instance, because DuckDB keeps one instance a path in a process: opened directly, a path
    # that was published again gives the old content as long as any connection to that is open.
    connection = _blank()
    try:
        connection.execute(f"attach {literal(path)} as history (read_only); use history")
        if memory is not None:
            bounds = f"set memory_limit = '{memory}B'; set max_temp_directory_size = '0B'; set threads = 2"
            connection.execute(f"{bounds}; set python_enable_replacements = false")
        connection.execute("set enable_external_access = false; set lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _blank() -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": os.path.join(tempfile.gettempdir(), f"duckdb-{os.getpid()}"),
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("set enable_progress_bar = false")
    return connection


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C stays Ctrl-C inside.

    DuckDB asks for signals while it works, and tells of one with an error of its own, which would pass for a fault.

    Raises:
        KeyboardInterrupt: where a signal that ends the program came while DuckDB was at work.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def sentence(error: duckdb.Error) -> str:
    """What DuckDB says, on one line, without the excerpt of the statement."""
    told = str(error).split("\n\nLINE ")[0].strip()
    return " ".join(re.sub(r"^[A-Z][A-Za-z ]* Error: ", "", told).split())


def literal(value: object) -> str:
    """``str(value)`` as an SQL string."""
    return "'" + str(value).replace("'", "''") + "'"
