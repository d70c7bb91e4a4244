"""Snapshots on disk: the activations of a site at a step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dynamics.files.branches import END, Part
from dynamics.files.commits import DamagedError, commit, is_committed, read_commit, read_file
from dynamics.files.layout import BRANCH, RunDirectory, folder_name, step_of
from dynamics.files.sealed import write_sealed
from dynamics.files.tensors import parse_tensors, tensor_bytes

FILE = "activations.safetensors"
PRUNED = "pruned.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class SnapshotRecord:
    """What is known about a snapshot without reading its activations."""

    site: str
    step: int
    """Optimiser step."""
    probe: str
    """Digest of the probe whose rows these are."""
    branch: str = BRANCH
    epoch: float | None = None
    samples: int | None = None
    """Training examples seen so far."""
    loss: float | None = None
    fingerprint: str | None = None
    """Digest of the model's weights; None for a snapshot made elsewhere."""
    parts: tuple[str | None, ...] = ()
    """The same of what each rank had of them, where all showed the probe."""
    dtype: str = ""
    """``float32``, ``float16`` or ``bfloat16``; this and the next three are filled in by ``write_snapshot``."""
    rows: int = 0
    d_in: int = 0
    path: str = ""
    """The file of activations, from the run directory; the first one where several ranks wrote their rows."""
    pruned: bool = False
    """Whether that file was removed on request, once nothing needed it any more."""


def write_snapshot(
    run: RunDirectory, record: SnapshotRecord, activations: Float[Tensor, "rows d_in"]
) -> SnapshotRecord:
    """Commit the activations of a site at a step, in the dtype they come in.

    Writing the same again changes nothing. The probe should be written before.

    Returns:
        The record with dtype, rows, d_in and path filled in.

    Raises:
        ValueError: if the dtype is none of float32, float16, bfloat16.
        FileExistsError: if the step has other activations or other facts committed.
    """
    dtype = str(activations.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"activations are {dtype}; a snapshot holds one of {', '.join(DTYPES)}")
    folder = run.snapshot(record.site, record.step, record.branch)
    rows, d_in = activations.shape
    record = replace(record, dtype=dtype, rows=rows, d_in=d_in, path=run.relative(folder / FILE))
    data = tensor_bytes({"activations": activations})
    if is_committed(folder):
        return _same(folder, record, data)
    commit(folder, snapshot_facts(record), {FILE: data})
    return record


def snapshot_facts(record: SnapshotRecord) -> dict[str, Any]:
    """What the commit record of a snapshot says."""
    said = {name: value for name, value in asdict(record).items() if name not in ("path", "pruned")}
    return said if record.parts else {name: value for name, value in said.items() if name != "parts"}


def _same(folder: Path, record: SnapshotRecord, data: bytes) -> SnapshotRecord:
    committed = read_commit(folder)
    known = _record(committed, record.path)
    if committed["files"].get(FILE) != hashlib.sha256(data).hexdigest():
        raise FileExistsError(
            f"step {record.step} of {record.site} is committed with other activations "
            f"({known.dtype} {known.rows} x {known.d_in}); what is committed never changes: use another run directory"
        )
    for name in ("probe", "epoch", "samples", "loss", "fingerprint"):
        old, new = getattr(known, name), getattr(record, name)
        if new is not None and new != old and not (new != new and old != old):  # a NaN loss equals a NaN loss
            raise FileExistsError(
                f"step {record.step} of {record.site} is committed with {name} {old}, given {new}; "
                "what is committed never changes: use another run directory"
            )
    return known


def snapshots(run: RunDirectory, site: str, branch: str | None = None) -> list[SnapshotRecord]:
    """The committed snapshots of a site, ascending by step; empty where there are none.

    Those of the timeline that ends in ``branch``, by default of the current one: up to where it forked, they are in
    the folders of the branch that it left.

    Raises:
        DamagedError: if a commit record does not parse.
    """
    return _of_parts(run, site, run.timeline(branch).parts)


def all_snapshots(run: RunDirectory, site: str) -> list[SnapshotRecord]:
    """The committed snapshots of a site in every branch, ascending by step; raises as :func:`snapshots`."""
    return _of_parts(run, site, [Part(branch, 0, END) for branch in (BRANCH, *run.branches())])


def _of_parts(run: RunDirectory, site: str, parts: Iterable[Part]) -> list[SnapshotRecord]:
    folders = [
        folder
        for part in parts
        for folder in run.snapshots(part.branch).glob(f"step_*/{folder_name(site)}")
        if step_of(folder.parent) in part and is_committed(folder)
    ]
    return sorted((_read(run, folder) for folder in folders), key=lambda record: record.step)


def _read(run: RunDirectory, folder: Path) -> SnapshotRecord:
    committed = read_commit(folder)
    path = run.relative(folder / min(committed["files"], default=FILE))
    return replace(_record(committed, path), pruned=is_pruned(folder))


def _record(committed: dict[str, Any], path: str) -> SnapshotRecord:
    known = {field.name for field in fields(SnapshotRecord)}
    try:
        facts = {name: value for name, value in committed.items() if name in known}
        return SnapshotRecord(**{**facts, "parts": tuple(facts.get("parts", ())), "path": path})
    except TypeError:
        raise DamagedError(f"the commit record of {path} is damaged: it names no site, step or probe") from None


def load_activations(run: RunDirectory, record: SnapshotRecord) -> Float[Tensor, "rows d_in"]:
    """The activations of a snapshot as float32, compared with the SHA-256 they were committed with.

    Raises:
        FileNotFoundError: if the snapshot is not there.
        DamagedError: if its file is missing, damaged or pruned.
    """
    path = run.path / record.path
    if is_pruned(path.parent):
        raise DamagedError(f"{path} was pruned: what was made of it is kept, and it cannot be analysed anew")
    committed = read_commit(path.parent)
    files = sorted(committed["files"]) or [FILE]  # one, or one of each rank in the order of the rows
    read = (parse_tensors(read_file(path.parent, name, committed), str(path.with_name(name)))[0] for name in files)
    return torch.cat([tensors["activations"].float() for tensors in read])


def prune_activations(run: RunDirectory, record: SnapshotRecord) -> int:
    """Remove the activations of a snapshot for good, leaving a record that says so. Returns the bytes that it freed."""
    folder = (run.path / record.path).parent
    names: list[str] = sorted(read_commit(folder)["files"])
    files = [folder / name for name in names]
    # First: killed in between, it is known what was meant.
    write_sealed(folder / PRUNED, {"removed": names})
    size = sum(path.stat().st_size for path in files if path.exists())
    for path in files:
        path.unlink(missing_ok=True)
    return size


def is_pruned(folder: Path) -> bool:
    """Whether the activations of a snapshot were removed on request."""
    return (folder / PRUNED).is_file()
