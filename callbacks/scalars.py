"""Numbers about features for a trainer's loggers, read from the files of the run as they come."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

import pyarrow.compute as pc

from dynamics.files.layout import RunDirectory
from dynamics.files.results import load_tables, tracking_record
from dynamics.files.saes import sae_records
from dynamics.files.settings import load_level

SECONDS = 10.0
"""Least time between two looks at the files."""
log = logging.getLogger("dynamics")


class Scalars:
    """What has become known about each checkpoint, once, and one checkpoint at a time.

    Results come later than the step they are about, and loggers drop steps that go back. So they are logged at the step
    training has reached, with ``dynamics/step`` beside them, which is the checkpoint's; two at one step would be one.
    """

    def __init__(self, run: str, seconds: float = SECONDS) -> None:
        """Keeps where the run is; it need not be there yet."""
        self._run, self._seconds = run, seconds
        self._known: set[tuple[str, str, int]] = set()
        self._waiting: deque[dict[str, float]] = deque()
        self._looked = -seconds

    def next(self) -> dict[str, float] | None:
        """The numbers of one checkpoint, or None where nothing new is known. Never raises: training goes on."""
        try:
            if not self._waiting and time.monotonic() - self._looked >= self._seconds:
                self._looked = time.monotonic()
                self._look()
        except Exception as error:
            log.debug("no numbers for the loggers: %s", error, exc_info=True)
        return self._waiting.popleft() if self._waiting else None

    def _look(self) -> None:
        run = RunDirectory.open(self._run)
        found: dict[int, dict[str, float]] = {}
        for site in run.sites():
            for step, values in [*self._dictionaries(run, site), *self._tracked(run, site)]:
                named = {f"dynamics/{site}/{name}": value for name, value in values.items()}
                found.setdefault(step, {"dynamics/step": float(step)}).update(named)
        self._waiting.extend(found[step] for step in sorted(found))

    def _dictionaries(self, run: RunDirectory, site: str) -> list[tuple[int, dict[str, float]]]:
        records = [r for r in sae_records(run, site, arm="chain") if self._is_new("sae", site, r.step)]
        return [(r.step, {"fvu": r.fvu, "l0": r.l0}) for r in records]

    def _tracked(self, run: RunDirectory, site: str) -> list[tuple[int, dict[str, float]]]:
        record = tracking_record(run, site)
        if record is None:
            return []
        tables = load_tables(record)
        events = tables["event_candidates"]
        passed = pc.and_(pc.equal(events["arm"], "chain"), pc.is_null(events["reason"]))
        passed = pc.and_(passed, pc.fill_null(pc.less_equal(events["q_value"], load_level(run)), False))
        published = events.filter(passed).select(["kind", "step"]).to_pylist()
        fresh = [row for row in tables["population"].to_pylist() if self._is_new("tracked", site, row["step"])]
        return [(row["step"], _counts(row, published)) for row in fresh]

    def _is_new(self, what: str, site: str, step: int) -> bool:
        before = len(self._known)
        self._known.add((what, site, step))
        return len(self._known) > before


def _counts(row: dict[str, Any], published: list[dict[str, Any]]) -> dict[str, float]:
    counts = {
        f"{kind}s": float(sum(event["kind"] == kind and event["step"] == row["step"] for event in published))
        for kind in ("birth", "death", "split", "merge")
    }
    values = {"live": float(row["live"]), "dead": float(row["dead"]), **counts}
    if row["mean_drift"] is not None and row["null_drift"] is not None:
        values["drift_beyond_null"] = row["mean_drift"] - row["null_drift"]
    return values
