"""Hooks that a training never notices, whatever goes wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from dynamics.faults import Faults


def guarded(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook; what it raises is warned about and counted by the tracker's ``faults``, and it then gives None."""

    @wraps(hook)
    def safe(tracker: Any, *given: Any, **named: Any) -> Any:
        try:
            return hook(tracker, *given, **named)
        except Exception as error:
            faults: Faults = tracker.faults
            faults.skip(error, hook.__name__)

    return safe
