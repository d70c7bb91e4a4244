"""What goes wrong beside a training: counted, and said the first time of each kind."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

log = logging.getLogger("dynamics")


class RecorderWarning(UserWarning):
    """Something of ours went wrong; training goes on as if nothing had."""


class Faults:
    """Counts what goes wrong, and warns the first time of each kind.

    Args:
        strict: let every fault through, for tests.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.counts: Counter[str] = Counter()

    def skip(self, error: Exception, what: str) -> None:
        """Called while ``error`` is handled."""
        if self._strict:
            raise error
        kind = type(error).__name__
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self.warn(f"{what} skipped ({kind}: {error}); training goes on, {self.counts.total()} skipped so far")

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
