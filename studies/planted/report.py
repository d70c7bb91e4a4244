"""What a tracker said about a history: plain rows with the column names of the library's views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Row = Mapping[str, Any]

QUERIES = {
    "events": "select kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, q_value "
    "from events",
    "links": "select from_step, from_latent, to_step, to_latent from links",
    "history": "select track, step, latent from feature_history",
    "transitions": "select from_step, to_step, peak_step from transitions",
}

CANDIDATES = """
    select kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, q_value from event_candidates
    where site = '{site}' and arm = 'chain' and (reason is null or reason = 'q')
        and (q_value is null or q_value <= {level})
"""


@dataclass(frozen=True)
class Report:
    """The tables that are scored; each a sequence of rows (mappings), as ``pyarrow.Table.to_pylist`` gives them."""

    events: Sequence[Row] = ()
    """kind, step, from_step, to_step, parents, children and, where there are any, parent_tracks, child_tracks."""
    links: Sequence[Row] = ()
    """from_step, from_latent, to_step, to_latent."""
    history: Sequence[Row] = ()
    """track, step, latent."""
    transitions: Sequence[Row] = ()
    """from_step, to_step and, where there is one, peak_step."""

    @cached_property
    def track_of(self) -> dict[tuple[int, int], int]:
        """(step, latent) to track."""
        return {(row["step"], row["latent"]): row["track"] for row in self.history}

    @cached_property
    def latents_of(self) -> dict[int, list[tuple[int, int]]]:
        """Track to its (step, latent) pairs in order of steps."""
        tracks: dict[int, list[tuple[int, int]]] = {}
        for row in sorted(self.history, key=lambda row: row["step"]):
            tracks.setdefault(row["track"], []).append((row["step"], row["latent"]))
        return tracks


def from_tables(tables: Mapping[str, Any]) -> Report:
    """A report from Arrow tables or lists of rows, named ``events``, ``links``, ``feature_history``, ``transitions``.

    Raises:
        KeyError: if ``events`` is missing.
    """
    history = tables.get("feature_history", tables.get("history", ()))
    others = (tables.get(name, ()) for name in ("links", "transitions"))
    links, transitions = (rows(table) for table in others)
    return Report(rows(tables["events"]), links, rows(history), transitions)


def rows(table: Any) -> list[Row]:
    """The rows of an Arrow table, or of anything that iterates over mappings."""
    if hasattr(table, "to_pylist"):
        return list(table.to_pylist())
    given: Iterable[Row] = table
    return list(given)


def from_run(run: Any, site: str, level: float | None = None) -> Report:
    """What a :class:`dynamics.Run` says about a site.

    Args:
        run: an opened run.
        site: one of its sites.
        level: take the events that would be published at this level (q ≤ level), instead of those that are.
    """
    tables = {name: rows(run.sql(f"{query} where site = '{site}'")) for name, query in QUERIES.items()}
    if level is not None:
        tables["events"] = rows(run.sql(CANDIDATES.format(site=site, level=level)))
    return from_tables(tables)
