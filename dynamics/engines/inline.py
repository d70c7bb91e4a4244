"""Works off what is missing, here and now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NoReturn

from tqdm import tqdm

from dynamics.answers import counted
from dynamics.files.layout import RunDirectory
from dynamics.pipeline.execution import attempt
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import missing_jobs, remaining
from dynamics.pipeline.publishing import publish_if_due
from dynamics.store.store import publish

WAIT = 0.2
"""Seconds before looking again where another process holds every job that is left."""


@dataclass
class Tally:
    """What came of the jobs so far."""

    done: int = 0
    failed: int = 0
    busy: int = 0
    """Found in other hands."""


def work_off(
    run: RunDirectory,
    *,
    progress: bool = False,
    growing: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Tally:
    """Does every job that the run wants, and publishes.

    Safe to interrupt at any point and to run beside other workers: what they have claimed is waited for.

    Args:
        run: the run.
        progress: show a progress bar on stderr.
        growing: more checkpoints are on their way.
        stopped: asked between jobs; true means leave the rest.
    """
    tally, left = Tally(), remaining(run)
    with tqdm(total=left, desc="jobs", unit="job", disable=not (progress and left), dynamic_ncols=True) as bar:
        while not stopped() and (batch := urgent(missing_jobs(run, growing=growing))):
            before = tally.done + tally.failed
            for job in _until(stopped, batch):
                bar.set_postfix_str(str(job))
                _count(tally, attempt(run, job))
                _advance(bar, tally, run)
                publish_if_due(run)
            if tally.done + tally.failed == before:
                time.sleep(WAIT)
    publish_if_due(run) if growing else publish(run)
    return tally


def urgent(jobs: list[Job]) -> list[Job]:
    """Those of the most urgent kind: the rest is looked at again when they are done."""
    return list(next((group for _, group in groupby(jobs, key=lambda job: job.kind)), []))


def _until(stopped: Callable[[], bool], jobs: list[Job]) -> Iterator[Job]:
    for job in jobs:
        if stopped():
            return
        yield job


def _advance(bar: tqdm[NoReturn], tally: Tally, run: RunDirectory) -> None:
    if not bar.disable:
        ended = tally.done + tally.failed
        bar.total = ended + remaining(run)
        bar.update(ended - bar.n)


def _count(tally: Tally, outcome: str) -> None:
    setattr(tally, outcome, getattr(tally, outcome) + 1)


class InlineEngine:
    """Fits in the training process as snapshots come; the database is made at the end."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def snapshots_written(self) -> None:
        """Fits what can be fitted; tracking waits for the end."""
        while batch := [job for job in missing_jobs(self._run, growing=True) if job.kind != "track"]:
            if all(attempt(self._run, job) == "busy" for job in batch):
                return

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        """Does the rest now, whatever ``wait`` says: nobody else will."""
        tally = work_off(self._run, progress=progress)
        return f"{counted(tally.done, 'job')} done" + (f", {tally.failed} failed" if tally.failed else "")

    def abandon(self) -> str:
        """Leaves the rest undone."""
        return f"training died; `dynamics analyze {self._run.path}` does what is left"
