"""When the database is brought up to date."""

from __future__ import annotations

import logging
import time

from dynamics.files.layout import RunDirectory
from dynamics.store.store import publish

SECONDS = 2.0
"""Least time between two publications while work goes on."""
BYTES_PER_SECOND = 5_000_000
"""Publishing copies the file: a second more of waiting for each so many bytes."""
log = logging.getLogger("dynamics")


def publish_if_due(run: RunDirectory) -> bool:
    """Publishes unless that was done a moment ago, by whomever; rarer as the file grows.

    What goes wrong is only noted: the fits are what matters, and the last publication tells whoever asked for it.
    """
    if not _due(run):
        return False
    try:
        publish(run)
    except Exception as error:
        log.info("the database was not brought up to date: %s", error)
    return True


def _due(run: RunDirectory) -> bool:
    try:
        found = run.history.stat()
    except FileNotFoundError:
        return True
    age = time.time() - found.st_mtime
    return age < 0 or age >= SECONDS + found.st_size / BYTES_PER_SECOND
