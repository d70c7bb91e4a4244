"""Arguments of adapters in the plain forms that a configuration file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from dynamics.schedule import Schedule, at, every, log_spaced


def named(value: Any) -> Any:
    """What ``"package.module:name"`` names; anything else as it is.

    Raises:
        ValueError: if there is no such module or no such name in it.
    """
    if not isinstance(value, str):
        return value
    module, _, name = value.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{value!r} names nothing that can be imported ({error}); write "package.module:name"'
        ) from None


def probe_of(value: Any) -> Any:
    """The probe itself; for ``"package.module:function"``, what that function returns."""
    found = named(value)
    return found() if isinstance(value, str) and callable(found) else found


def schedule_of(value: Schedule | str | int | Sequence[int]) -> Schedule:
    """``"log"``: log-spaced; a number n: every n steps; a list: exactly these steps; a Schedule: itself.

    Raises:
        TypeError: if it is something else, or a number is not whole.
        ValueError: if it is another word, or the numbers make no schedule.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        if value != "log":
            raise ValueError(f'schedule must be "log", a number of steps, a list of steps or a Schedule, got {value!r}')
        return log_spaced()
    return at(*value) if isinstance(value, Sequence) else every(value)
