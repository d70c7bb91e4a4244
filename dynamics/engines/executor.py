"""Jobs on anything with ``submit()``: the standard library's executors, loky, dask, submitit, Ray with a thin wrap."""

from __future__ import annotations

import time
from typing import Any, Protocol, runtime_checkable

from dynamics.answers import counted
from dynamics.engines.inline import work_off
from dynamics.files.layout import RunDirectory
from dynamics.pipeline.execution import attempt
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import missing_jobs, remaining
from dynamics.pipeline.publishing import publish_if_due

POLL = 0.1
"""Seconds between two looks while waiting for the end."""
SHARE = 0.01
"""Of the training's time, spent on looking for jobs at most: of a large run that takes a while."""


@runtime_checkable
class Submits(Protocol):
    """An executor; what ``submit`` returns must say when it is ``done()``."""

    def submit(self, function: Any, /, *args: Any) -> Any: ...


def perform(path: str, job: Job) -> str:
    """One job of the run at ``path``; what is submitted."""
    run = RunDirectory.open(path)
    outcome = attempt(run, job)
    publish_if_due(run)
    return outcome


def perform_all(path: str) -> None:
    """Everything that the run at ``path`` still wants; what is submitted at the end."""
    work_off(RunDirectory.open(path))


class ExecutorEngine:
    """Hands jobs to an executor as soon as their inputs exist, each once at a time."""

    def __init__(self, run: RunDirectory, executor: Submits) -> None:
        self._run, self._executor = run, executor
        self._flying: dict[Job, Any] = {}
        self._rests_until = 0.0

    def snapshots_written(self) -> None:
        """Submits what has become possible, by new snapshots or by jobs that ended; in a large run not every time."""
        started = time.monotonic()
        if started >= self._rests_until:
            self._submit(growing=True)
            ended = time.monotonic()
            self._rests_until = ended + (ended - started) / SHARE

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        """Leaves one last job that works everything off, or waits for each job, in parallel."""
        if not wait:
            self._executor.submit(perform_all, str(self._run.path))
            return f"{counted(remaining(self._run), 'job')} left; the executor goes on"
        while self._submit() or self._flying:
            time.sleep(POLL)
        work_off(self._run, progress=progress)
        return "everything is done"

    def abandon(self) -> str:
        """Submits no more; what was submitted ends by itself."""
        return f"training died; `dynamics analyze {self._run.path}` does what is left"

    def _submit(self, *, growing: bool = False) -> int:
        self._flying = {job: future for job, future in self._flying.items() if not future.done()}
        new = [job for job in missing_jobs(self._run, growing=growing) if job not in self._flying]
        for job in new:
            self._flying[job] = self._executor.submit(perform, str(self._run.path), job)
        return len(new)
