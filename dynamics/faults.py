"""What goes wrong beside a training: counted, and said the first time of each kind."""

from __future__ import annotations

import errno
import logging
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from textwrap import shorten

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where a disk is full, or a share of it."""
LONGEST = 500
"""Characters of a line in the list of what was skipped."""
log = logging.getLogger("dynamics")


class RecorderWarning(UserWarning):
    """Something of ours went wrong; training goes on as if nothing had."""


class OutOfStepError(RuntimeError):
    """A rank could not show its share of the probe to a model that takes all ranks: going on would mix up their calls.

    The one fault of ours that ends a training, and only one that asked for ``ranks="all"`` with FSDP.
    """


class Faults:
    """Counts what goes wrong, and warns the first time of each kind.

    Args:
        strict: let every fault through, for tests.
        listed: file in which each is a line, for whoever comes back when the warning is gone.
    """

    def __init__(self, strict: bool, listed: Path | None = None) -> None:
        self._strict, self._listed = strict, listed
        self.counts: Counter[str] = Counter()

    def skip(self, error: Exception, what: str) -> None:
        """Called while ``error`` is handled.

        Raises:
            OutOfStepError: if it is that one, which has to end the training.
        """
        if self._strict or isinstance(error, OutOfStepError):
            raise error
        kind = type(error).__name__
        self.counts[kind] += 1
        if self._listed is not None:
            _add(self._listed, f"{what}: {kind}: {error}")
        if self.counts[kind] == 1:
            goes_on = "training goes on, and recording when there is room" if _is_full(error) else "training goes on"
            self.warn(f"{what} skipped ({kind}: {error}); {goes_on}, {self.counts.total()} skipped so far")

    def sum_up(self, run: Path) -> None:
        """Says at the end how much was skipped, if anything was."""
        if self.counts:
            log.warning("skipped in %s: %s", run, ", ".join(f"{n} × {kind}" for kind, n in self.counts.items()))

    def warn(self, message: str) -> None:
        """Says it once, as a warning."""
        # Where warnings are errors, one of ours would end the training.
        try:
            warnings.warn(message, RecorderWarning, stacklevel=4)
        except Exception:
            log.warning("%s", message)


def _add(path: Path, line: str) -> None:
    """Adds a line, where that can be: a full disk is what there may be to say."""
    with suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(shorten(line, LONGEST) + "\n")


def skipped(path: Path) -> list[str]:
    """The lines of such a file; none where nothing went wrong."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


def show_messages() -> None:
    """Lets the few lines that we say be seen where the program has not set up logging; what it has set up stays."""
    if log.level == logging.NOTSET and not log.hasHandlers():
        log.setLevel(logging.INFO)
        log.addHandler(logging.StreamHandler())
