"""What a recorder asks of an engine, and which one a name stands for."""

from __future__ import annotations

from typing import Literal, Protocol, cast

from dynamics.engines.executor import ExecutorEngine, Submits
from dynamics.engines.inline import InlineEngine
from dynamics.engines.worker import WorkerEngine
from dynamics.files.layout import RunDirectory

Work = Literal["worker", "inline", "later"] | Submits


class Engine(Protocol):
    """Does the jobs of a run while it is being recorded."""

    def start(self) -> None:
        """Called once, when the first snapshot is about to be written."""

    def snapshots_written(self) -> None:
        """Called after each checkpoint's snapshots are committed. Returns at once, but for ``inline``."""

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        """No more snapshots will come, and the run is marked so.

        Args:
            wait: return when everything is done, with a progress bar.
            progress: show that bar.

        Returns:
            One line for the user: what is left, and who does it.
        """


class LaterEngine:
    """Leaves everything to ``dynamics analyze``."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def start(self) -> None:
        """Nothing to start."""

    def snapshots_written(self) -> None:
        """Nothing to do now."""

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        return f"nothing is analysed yet; `dynamics analyze {self._run.path}` does it"


def engine(run: RunDirectory, work: Work) -> Engine:
    """The engine for a recorder's ``work``: ``worker``, ``inline``, ``later``, or an executor.

    Raises:
        ValueError: if it is another word or has no ``submit``.
    """
    if isinstance(work, str):
        named = {"worker": WorkerEngine, "inline": InlineEngine, "later": LaterEngine}
        if work in named:
            return cast(Engine, named[work](run))
    elif callable(getattr(work, "submit", None)):
        return ExecutorEngine(run, work)
    raise ValueError(f'work must be "worker", "inline", "later" or an executor with submit(), got {work!r}')
