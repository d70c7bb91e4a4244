"""What a recorder asks of an engine, and which one a name stands for."""

from __future__ import annotations

from typing import Literal, Protocol, cast, runtime_checkable

from dynamics.engines.executor import ExecutorEngine, Submits
from dynamics.engines.inline import InlineEngine
from dynamics.engines.worker import WorkerEngine
from dynamics.files.layout import RunDirectory

Work = Literal["worker", "inline", "later"] | Submits


@runtime_checkable
class Engine(Protocol):
    """Does the jobs of a run while it is being recorded."""

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

    def abandon(self) -> str:
        """Training died: nothing new is begun. Returns one line for the user."""


class LaterEngine:
    """Leaves everything to ``dynamics analyze``."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def snapshots_written(self) -> None:
        """Nothing to do now."""

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        return self.abandon()

    def abandon(self) -> str:
        return f"nothing is analysed yet; `dynamics analyze {self._run.path}` does it"


def engine(run: RunDirectory, work: Work | object) -> Engine:
    """The engine for a recorder's ``work``: ``worker``, ``inline``, ``later``, or an executor.

    Raises:
        ValueError: if it is another word or has no ``submit``.
    """
    if isinstance(work, str):
        named = {"worker": WorkerEngine, "inline": InlineEngine, "later": LaterEngine}
        if work in named:
            return cast(Engine, named[work](run))
    elif callable(getattr(work, "submit", None)):
        return ExecutorEngine(run, cast(Submits, work))
    raise ValueError(f'work must be "worker", "inline", "later" or an executor with submit(), got {work!r}')
