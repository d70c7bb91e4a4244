"""Tracks what a network's features do while it trains."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynamics.recorder import Recorder as Recorder
    from dynamics.run import Run as Run
    from dynamics.run import open as open
    from dynamics.sae.autoencoder import SparseAutoencoder as SparseAutoencoder
    from dynamics.sae.config import SaeConfig as SaeConfig
    from dynamics.schedule import at as at
    from dynamics.schedule import every as every
    from dynamics.schedule import log_spaced as log_spaced

_HOME = {
    "Recorder": "dynamics.recorder",
    "Run": "dynamics.run",
    "SaeConfig": "dynamics.sae.config",
    "SparseAutoencoder": "dynamics.sae.autoencoder",
    "at": "dynamics.schedule",
    "every": "dynamics.schedule",
    "log_spaced": "dynamics.schedule",
    "open": "dynamics.run",
}
__all__ = ["Recorder", "Run", "SaeConfig", "SparseAutoencoder", "at", "every", "log_spaced", "open", "report"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first asked for: torch, DuckDB and the charts cost nothing until then."""
    if name == "__version__":
        return import_module("importlib.metadata").version("dynamics")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    near = import_module("difflib").get_close_matches(name, __all__, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise AttributeError(f"module 'dynamics' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """``dynamics.report`` is the function, also after its module of the same name was imported."""

    @property
    def report(self) -> Any:
        return import_module("dynamics.report").report

    @report.setter
    def report(self, module: ModuleType) -> None:
        """Where Python puts the submodule when it is imported."""


sys.modules[__name__].__class__ = _Package
