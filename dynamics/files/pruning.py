"""What a run can do without: activations whose results are committed, and what killed writers left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from dynamics.files.layout import BRANCH, RunDirectory
from dynamics.files.snapshots import all_snapshots, prune_activations

LIVE = 3600.0
"""Seconds: a temporary file that was touched since may be at work."""


def prune(run: RunDirectory) -> int:
    """Remove every snapshot's activations, those of superseded branches too, and leftovers.

    Returns:
        The bytes that it freed.
    """
    sites = sorted({site for branch in (BRANCH, *run.branches()) for site in run.sites(branch)})
    records = [record for site in sites for record in all_snapshots(run, site)]
    return sum(prune_activations(run, record) for record in records) + remove_leftovers(run)


def remove_leftovers(run: RunDirectory) -> int:
    """Remove what writers left that were killed. Returns the bytes that it freed."""
    freed = 0
    for path in leftovers(run):
        freed += path.stat().st_size
        path.unlink(missing_ok=True)
    return freed


def leftovers(run: RunDirectory) -> Iterator[Path]:
    """Temporary files that nobody has touched for an hour."""
    for pattern in (".*.tmp", "*/**/.*.tmp", ".history-*"):
        for path in run.path.glob(pattern):
            if path.is_file() and time.time() - path.stat().st_mtime > LIVE:
                yield path
