"""Numbers about features for a trainer's loggers, read from the run as they are published."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

SECONDS = 10.0
"""Least time between two looks at the file."""
DICTIONARY = frozenset({"fvu", "l0"})
"""What is known of a checkpoint as soon as it has an SAE; the rest comes when it is tracked."""
log = logging.getLogger("dynamics")


class Scalars:
    """What has become known about each checkpoint, once, and one checkpoint at a time.

    Results come later than the step they are about, and loggers drop steps that go back. So they are logged at the step
    training has reached, with ``dynamics/step`` beside them, which is the checkpoint's; two at one step would be one.
    """

    def __init__(self, published: Path, seconds: float = SECONDS) -> None:
        """Keeps where they are published; the file need not be there yet."""
        self._path, self._seconds = published, seconds
        self._known: set[tuple[str, int, bool]] = set()
        self._waiting: deque[dict[str, float]] = deque()
        self._looked = -seconds
        self._seen: tuple[int, int] | None = None

    def next(self) -> dict[str, float] | None:
        """The numbers of one checkpoint, or None where nothing new is known. Never raises: training goes on."""
        try:
            if not self._waiting and time.monotonic() - self._looked >= self._seconds:
                self._looked = time.monotonic()
                with suppress(FileNotFoundError):
                    self._look()
        except Exception as error:
            log.debug("no numbers for the loggers: %s", error, exc_info=True)
        return self._waiting.popleft() if self._waiting else None

    def _look(self) -> None:
        """Reads the file where it is another one than the last time."""
        status = self._path.stat()
        state = status.st_ino, status.st_mtime_ns
        if state != self._seen:
            self._read()
            self._seen = state

    def _read(self) -> None:
        found: dict[int, dict[str, float]] = {}
        for row in pq.read_table(self._path).to_pylist():
            site, step = row.pop("site"), row.pop("step")
            for stage in (DICTIONARY, row.keys() - DICTIONARY):
                values = {f"dynamics/{site}/{name}": float(row[name]) for name in stage if row[name] is not None}
                if values and self._is_new(site, step, stage is DICTIONARY):
                    found.setdefault(step, {"dynamics/step": float(step)}).update(values)
        self._waiting.extend(found[step] for step in sorted(found))

    def _is_new(self, site: str, step: int, dictionary: bool) -> bool:
        before = len(self._known)
        self._known.add((site, step, dictionary))
        return len(self._known) > before
