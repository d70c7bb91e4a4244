"""The small facts of a run: its SAE settings, the published level, whether it is still being recorded."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, Timeout

from dynamics.files.atomic import lock
from dynamics.files.commits import DamagedError
from dynamics.files.layout import BRANCH, RunDirectory
from dynamics.files.saes import sae_records
from dynamics.files.sealed import unsealed, write_sealed
from dynamics.sae.config import SaeConfig

_PATIENCE = 10.0
"""Seconds: children of a training that was killed, as those of a data loader, may hold its lock for five."""
LEVEL = 0.1
"""False-discovery rate at which events are published unless the user says otherwise."""


def write_settings(run: RunDirectory, config: SaeConfig) -> None:
    """Write the SAE settings of a run; they can be changed until the first SAE is trained with them.

    Raises:
        ValueError: if the run has others and SAEs that were trained with them, naming each difference.
    """
    with _held(run):
        require_settings(run, config)
        if load_settings(run) != config:
            write_sealed(run.path / "settings.json", asdict(config))


def require_settings(run: RunDirectory, config: SaeConfig) -> None:
    """Raises ValueError where SAEs of a run were trained with other settings, naming each difference."""
    known = load_settings(run)
    if known in (None, config) or not _trained(run):
        return
    old, new = asdict(known), asdict(config)
    differences = ", ".join(
        f"{name} is {_named(old[name])}, given {_named(new[name])}" for name in old if old[name] != new[name]
    )
    raise ValueError(
        f"the run has other SAE settings: {differences}; leave them out to go on, or use another run directory"
    )


def _held(run: RunDirectory) -> BaseFileLock:
    return lock(run.locks / "settings.lock")


def _trained(run: RunDirectory) -> bool:
    places = [(site, branch) for branch in (BRANCH, *run.branches()) for site in run.sites(branch)]
    return any(not record.imported for site, branch in places for record in sae_records(run, site, branch=branch))


@contextmanager
def unchanged_settings(run: RunDirectory, config: SaeConfig) -> Iterator[None]:
    """Holds the settings while an SAE that was trained with them is committed.

    Raises:
        RuntimeError: if they were changed since.
    """
    with _held(run):
        if load_settings(run) != config:
            raise RuntimeError("the SAE settings of the run were changed meanwhile")
        yield


def _named(value: object) -> str:
    return "the default" if value is None else str(value)


def load_settings(run: RunDirectory) -> SaeConfig | None:
    """The SAE settings of a run, None before they are written.

    Raises:
        DamagedError: if their file is damaged.
    """
    content = _read(run.path / "settings.json")
    if content is None:
        return None
    try:
        return SaeConfig(**content)
    except (TypeError, ValueError) as error:
        raise DamagedError(
            f"{run.path / 'settings.json'} is damaged ({error}); restore it, or remove it and `saes`"
        ) from None


def write_level(run: RunDirectory, fdr: float) -> None:
    """Set the false-discovery rate up to which events are published.

    Raises:
        ValueError: if it is not in (0, 1).
    """
    require_level(fdr)
    write_sealed(run.path / "level.json", {"fdr": fdr})


def require_level(fdr: float) -> None:
    """Raises ValueError where a false-discovery rate is not in (0, 1)."""
    if not 0 < fdr < 1:
        raise ValueError(f"the false-discovery rate must lie between 0 and 1, got {fdr}; 0.1 is the default")


def load_level(run: RunDirectory) -> float:
    """The published false-discovery rate."""
    content = _read(run.path / "level.json", "fdr")
    return LEVEL if content is None else float(content["fdr"])


def only_recorder(run: RunDirectory) -> BaseFileLock:
    """Holds the right to record a run, until it is released or the process ends.

    Raises:
        RuntimeError: if another recorder holds it.
    """
    held = lock(run.locks / "recording.lock", timeout=0.0 if _recorded_by(run) == this_process() else _PATIENCE)
    try:
        held.acquire()
    except Timeout:
        gc.collect()  # a recorder in this process that nobody has any more, but for a cycle of references
        try:
            held.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(f"{run.path} is being recorded {_reproach(run)}") from None
    return held


def _reproach(run: RunDirectory) -> str:
    by = _recorded_by(run)
    if by == this_process():
        return "in this process already: close() the other Recorder, or give all sites to one"
    return f"by {by}: wait for its end, or name another directory"


def this_process() -> str:
    """Its number and its machine, for people and to be compared."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _recorded_by(run: RunDirectory) -> str:
    return str((_read(run.path / "recording.json") or {}).get("by", "another process"))


def write_recording(run: RunDirectory, *, closed: bool) -> None:
    """Mark whether more snapshots are to come."""
    write_sealed(run.path / "recording.json", {"closed": closed, "by": this_process()})


def load_recording(run: RunDirectory) -> bool | None:
    """True where a recorder has closed the run, False while it records (or died), None where none ever did."""
    content = _read(run.path / "recording.json", "closed")
    return None if content is None else bool(content["closed"])


def _read(path: Path, *wanted: str) -> dict[str, Any] | None:
    try:
        content = unsealed(path.read_bytes())
        if missing := [name for name in wanted if name not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return content
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}); restore or remove it") from None
