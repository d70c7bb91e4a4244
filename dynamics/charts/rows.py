"""Rows for a chart, with the SQL that gave them: what a chart asks of a run, and safe quoting."""

from __future__ import annotations

import difflib
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Row = dict[str, Any]
JUDGED = "select max(null_candidates) as null_candidates from resolution where site = $site"
UNJUDGED = "No event can be told yet: there is no null series to tell it from retraining noise."


@runtime_checkable
class History(Protocol):
    """What charts and the report need of a run; ``dynamics.open(path)`` has it."""

    @property
    def path(self) -> Path: ...

    def sql(self, query: str) -> Any: ...

    def sites(self) -> list[str]: ...


class Source:
    """Asks a run for rows and remembers the questions, so that a chart can show the SQL behind it."""

    def __init__(self, run: History) -> None:
        self.run = run
        self.queries: list[str] = []

    def rows(self, query: str, **values: str | int | float) -> list[Row]:
        """Rows of ``query``, ``$name`` placeholders replaced by quoted values; NaN and infinities become None."""
        asked = re.sub(r"\$([a-z_]+)", lambda found: literal(values[found[1]]), query).strip()
        self.queries.append(asked)
        return [{name: _finite(value) for name, value in row.items()} for row in self.run.sql(asked).to_pylist()]

    def site(self, name: str) -> str:
        """The name, if the run has such a site.

        Raises:
            ValueError: if it has none, naming the nearest one.
        """
        sites = list(self.run.sites())
        if name in sites:
            return name
        near = difflib.get_close_matches(name, sites, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"the run has no site {name!r}; {hint}It has: {', '.join(sites) or 'none yet'}")

    def judged(self, site: str) -> bool:
        """Whether events of a site can be told from retraining noise: there is a null series with candidates."""
        return bool(self.rows(JUDGED, site=site)[0]["null_candidates"])

    @property
    def text(self) -> str:
        """Every query so far, to be pasted into ``dynamics sql RUN``."""
        return ";\n\n".join(self.queries)


def literal(value: str | int | float) -> str:
    """A SQL literal that stands for exactly this value."""
    if isinstance(value, str):
        # In two parts where it would end the script of a page that holds the statement.
        return "'" + re.sub("<(?=[/!])", "<' || '", value.replace("'", "''")) + "'"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, float) else str(int(value))


def _finite(value: Any) -> Any:
    if isinstance(value, Decimal):  # what DuckDB's sum of integers comes back as
        return int(value) if value == int(value) else float(value)
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
