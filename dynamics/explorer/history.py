"""A run as its database was at one moment: everything on the page speaks of the same state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb

from dynamics.run import Run
from dynamics.store.queries import connect

REACHED = "select (select max(step) from checkpoints) as step, (select max(step) from population) as tracked"


class Published:
    """What charts and panels ask of a run, over one connection that is kept open until something newer is published.

    Opening the database takes longer than most questions do, and a page asks a dozen at a click.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._identity: tuple[int, int] | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._sites: list[str] | None = None

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def history(self) -> Path:
        """The file of the database."""
        return self.run.directory.history

    def published(self) -> str:
        """Up to which step the database goes, how far that is tracked, and how old it is: one line."""
        [reached] = self.sql(REACHED).to_pylist()
        step, tracked = reached["step"], reached["tracked"]
        age = max(0, round(time.time() - self._identity[1] / 1e9)) if self._identity else 0
        if step is None:
            return "no checkpoints yet"
        behind = "nothing tracked yet" if tracked is None else f"tracked up to step {tracked:,}"
        return f"as of step {step:,}{f', {behind}' if tracked != step else ''} ({age:,} s ago)"

    def renew(self) -> bool:
        """Go over to what is published now; whether that is something else than before."""
        if self._identity is None or not self.history.exists():
            self.run.sql("select 1")  # publishes what is committed where that was not done, or by another version
        status = self.history.stat()
        if (status.st_ino, status.st_mtime_ns) == self._identity:
            return False
        old, self._connection = self._connection, connect(self.run.directory)
        self._identity, self._sites = (status.st_ino, status.st_mtime_ns), None
        if old is not None:
            old.close()
        return True

    def sql(self, query: str) -> Any:
        """The rows of a query on that state, as a ``pyarrow.Table``."""
        if self._connection is None:
            self.renew()
        assert self._connection is not None
        return self._connection.sql(query).to_arrow_table()

    def sites(self) -> list[str]:
        """The sites of which something is published."""
        if self._sites is None:  # every chart asks
            there = set(self.sql("select distinct site from snapshots").column("site").to_pylist())
            self._sites = [site for site in self.run.sites() if site in there]
        return self._sites
