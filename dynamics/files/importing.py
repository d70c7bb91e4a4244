"""Snapshots that other programs made: a directory of ``step_<n>.safetensors``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynamics.files.commits import DamagedError
from dynamics.files.imported_rows import ImportedProbe, imported_probe, read_losses
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import write_probe
from dynamics.files.settings import only_recorder
from dynamics.files.snapshots import SnapshotRecord, write_snapshot
from dynamics.files.tensors import parse_tensors, tensor_header

NAME = re.compile(r"step_([0-9]+)\.safetensors")
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Source:
    """One file to import, and what its header says."""

    path: Path
    step: int
    rows: int
    d_in: int


def import_snapshots(
    directory: str | Path,
    run: RunDirectory,
    site: str,
    text: str | Path | None = None,
    loss: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[SnapshotRecord]:
    """Take the snapshots of one site from ``step_<n>.safetensors`` files into a run.

    Each file has one tensor, ``activations [rows, d_in]`` (float32, float16 or bfloat16), rows in the same order in
    every file. Files are read one by one. Importing the same again changes nothing.

    Args:
        directory: where the files are.
        run: where they go.
        site: the module whose output they are.
        text: a file with the text of each row: one line a row, or JSON, a list of strings or of lists of strings (the
            tokens of each sequence). Otherwise each row is its own sequence. A second site inherits the text.
        loss: a file with the loss at each step: CSV lines ``step,loss``, or a JSON object.
        on_step: called with (files done, files in all) after each.

    Raises:
        FileNotFoundError: if the directory or a file is not there.
        ValueError: if the files do not fit each other, the run or the text, or hold values that are not finite.
        FileExistsError: if a step is in the run with other content.
        RuntimeError: if the run is being recorded, or somebody else imports into it.
    """
    with only_recorder(run):
        return _imported(directory, run, site, text, loss, on_step)


def _imported(
    directory: str | Path,
    run: RunDirectory,
    site: str,
    text: str | Path | None,
    loss: str | Path | None,
    on_step: Callable[[int, int], None] | None,
) -> list[SnapshotRecord]:
    sources = [_source(path, step) for step, path in sorted(step_files(Path(directory)).items())]
    _check_alike(sources)
    probe = imported_probe(run, site, sources[0].rows, None if text is None else Path(text))
    losses = {} if loss is None else read_losses(Path(loss))
    write_probe(run, probe.digest, probe.rows)
    records = []
    for done, source in enumerate(sources, start=1):
        records.append(_take(run, site, source, probe, losses.get(source.step)))
        if on_step is not None:
            on_step(done, len(sources))
    return records


def step_files(directory: Path) -> dict[int, Path]:
    """The ``step_<n>.safetensors`` files of a directory, by step.

    Raises:
        FileNotFoundError: if there is no such directory or no such file in it.
        ValueError: if two files are of one step.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no directory {directory}; name the one that holds the step_<n>.safetensors files")
    found = by_step(directory.iterdir(), NAME)
    if not found:
        raise FileNotFoundError(f"no step_<n>.safetensors in {directory}; {_there(directory)}")
    return found


def by_step(paths: Iterable[Path], name: re.Pattern[str]) -> dict[int, Path]:
    """Those of the paths whose name fits, by the step that its first group says.

    Raises:
        ValueError: if two are of one step.
    """
    found: dict[int, Path] = {}
    for path in sorted(paths):
        if match := name.fullmatch(path.name):
            if (step := int(match[1])) in found:
                both = f"{found[step].name} and {path.name} in {path.parent}"
                raise ValueError(f"{both} are both of step {step}; keep one")
            found[step] = path
    return found


def _there(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    return "it holds " + ", ".join(names[:4]) + (", …" if len(names) > 4 else "") if names else "it is empty"


def _source(path: Path, step: int) -> Source:
    header = file_header(path)
    names = sorted(name for name in header if name != "__metadata__")
    if "activations" not in names:
        raise ValueError(f"{path.name} has no tensor `activations`; it has: {', '.join(names) or 'none'}")
    dtype, shape = header["activations"]["dtype"], header["activations"]["shape"]
    if len(shape) != 2:
        raise ValueError(f"`activations` in {path.name} has shape {shape}; [rows, d_in] is wanted")
    if dtype not in DTYPES:
        raise ValueError(f"`activations` in {path.name} is {dtype}; one of {', '.join(DTYPES.values())} is wanted")
    if 0 in shape:
        raise ValueError(f"`activations` in {path.name} is empty: its shape is {shape}")
    return Source(path, step, *shape)


def file_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, read without its tensors.

    Raises:
        ValueError: if it is no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError(f"{path.name} is no whole safetensors file; write it again")
        head = length.to_bytes(8, "little") + file.read(length)
    try:
        return tensor_header(head)
    except ValueError:
        raise ValueError(f"{path.name} is no whole safetensors file; write it again") from None


def _check_alike(sources: list[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        if (source.rows, source.d_in) != (first.rows, first.d_in):
            raise ValueError(
                f"{first.path.name} has shape [{first.rows}, {first.d_in}] and {source.path.name} "
                f"[{source.rows}, {source.d_in}]; every step of a site shows the same rows at the same width"
            )


def _take(run: RunDirectory, site: str, source: Source, probe: ImportedProbe, loss: float | None) -> SnapshotRecord:
    branch = run.timeline().owner(source.step)
    record = SnapshotRecord(site=site, step=source.step, probe=probe.digest, loss=loss, branch=branch)
    return write_snapshot(run, record, _finite(source.path))


def _finite(path: Path) -> Tensor:
    try:
        activations = parse_tensors(path.read_bytes(), path.name)[0]["activations"]
    except DamagedError as error:
        raise ValueError(f"{error}; write it again") from None
    bad = int((~torch.isfinite(activations)).sum())
    if bad:
        share = bad / activations.numel()
        raise ValueError(
            f"{share:.2%} of the values in {path.name} are not finite ({bad} of {activations.numel()}); "
            "leave that step out, or clean it"
        )
    return activations
