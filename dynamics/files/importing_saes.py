"""SAEs that other programs made: a directory of ``step_<n>.safetensors``, or of folders ``step_<n>`` of a library."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from dynamics.files.commits import DamagedError
from dynamics.files.foreign_saes import LIBRARIES, read_foreign_sae
from dynamics.files.importing import by_step, file_header, step_files
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import SaeRecord, contexts_table, latents_table, load_sae, sae_records, write_sae
from dynamics.files.settings import only_recorder
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots
from dynamics.files.tensors import parse_tensors
from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.metrics import evaluate

FORMATS = ("dynamics", *LIBRARIES)
FOLDER = re.compile(r"step_(\d+)")


def import_saes(
    directory: str | Path,
    run: RunDirectory,
    site: str,
    format: str = "dynamics",
    on_step: Callable[[int, int], None] | None = None,
) -> list[SaeRecord]:
    """Take the SAEs of one site into a run, as its chain.

    Import the snapshots first. What is said about each SAE is measured on all rows of the probe. Importing the same
    again changes nothing.

    Args:
        directory: where the files or folders are.
        run: where they go.
        site: the module whose output they explain.
        format: ``dynamics``: files ``step_<n>.safetensors`` with ``W_enc [d_in, n]``, ``b_enc [n]``,
            ``W_dec [n, d_in]`` with unit rows, ``b_dec [d_in]``, for threshold kinds ``threshold [n]``, metadata
            ``architecture`` and ``k``, in raw activation units. ``saelens``, ``dictionary_learning``, ``sparsify``:
            folders ``step_<n>`` with the two files that the library writes.
        on_step: called with (files done, files in all) after each.

    Raises:
        FileNotFoundError: if the directory or a file is not there, or the run has no snapshot at one of the steps.
        FileExistsError: if a step has another SAE already.
        ValueError: if the format is unknown, a file holds no such SAE, or they are not all of one architecture.
        RuntimeError: if the run is being recorded, or somebody else imports into it.
    """
    check_format(format)
    files = step_files(Path(directory)) if format == "dynamics" else step_folders(Path(directory))
    with only_recorder(run):
        return _imported(run, site, files, format, on_step)


def _imported(
    run: RunDirectory, site: str, files: dict[int, Path], format: str, on_step: Callable[[int, int], None] | None
) -> list[SaeRecord]:
    known = {record.step: record for record in snapshots(run, site)}
    _check_steps(site, sorted(files), sorted(known))
    _check_architecture(run, site, {path.name: _architecture(path, format) for _, path in sorted(files.items())})
    records = []
    for done, (step, path) in enumerate(sorted(files.items()), start=1):
        records.append(_take(run, known[step], path, read_sae(path, format)))
        if on_step is not None:
            on_step(done, len(files))
    return records


def _check_steps(site: str, given: list[int], known: list[int]) -> None:
    if missing := [step for step in given if step not in known]:
        raise FileNotFoundError(
            f"there {'is an SAE' if len(missing) == 1 else 'are SAEs'} for step {listed(missing)}, of which the run "
            f"has no snapshot of {site}; it has {listed(known) or 'none of that site'}: import the snapshots first, or "
            "leave these SAEs out"
        )


def _check_architecture(run: RunDirectory, site: str, found: dict[str, str]) -> None:
    """Raises ValueError where the SAEs of a site would not all be of one architecture."""
    before = {f"step {record.step} of the run": record.architecture for record in sae_records(run, site, "chain")}
    (first, architecture), *others = {**before, **found}.items()
    for name, other in others:
        if other and architecture and other != architecture:
            raise ValueError(
                f"{first} is {architecture} and {name} is {other}; the SAEs of a site are of one architecture, or "
                "its history would show where that changed"
            )


def _architecture(path: Path, format: str) -> str:
    if format != "dynamics":
        return read_foreign_sae(path, format).architecture
    metadata: dict[str, str] = file_header(path).get("__metadata__") or {}
    return metadata.get("architecture", "")


def step_folders(directory: Path) -> dict[int, Path]:
    """The folders ``step_<n>`` of a directory, by step.

    Raises:
        FileNotFoundError: if there is no such directory or no such folder in it.
        ValueError: if two are of one step.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"no directory {directory}; name the one that holds the folders step_<n>")
    found = by_step(filter(Path.is_dir, directory.iterdir()), FOLDER)
    if not found:
        raise FileNotFoundError(f"no folder step_<n> in {directory}; each is to hold what the library wrote for a step")
    return found


def check_format(format: str) -> None:
    """Raises ValueError for an unknown format, suggesting the nearest."""
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}? There" if near else "; there"
        raise ValueError(f"unknown format {format!r}{hint} are: {', '.join(FORMATS)}")


def listed(steps: Sequence[int]) -> str:
    """The first few steps, and whether there are more."""
    return ", ".join(map(str, steps[:6])) + (", …" if len(steps) > 6 else "")


def read_sae(path: Path, format: str = "dynamics") -> SparseAutoencoder:
    """The SAE in a file of the format ``dynamics`` or in a folder of another library.

    Raises:
        FileNotFoundError: if a folder lacks one of the library's files.
        ValueError: if there is none that can be used, naming the file.
    """
    if format != "dynamics":
        return read_foreign_sae(path, format)
    try:
        tensors, metadata = parse_tensors(path.read_bytes(), path.name)
        if "architecture" not in metadata:
            raise ValueError("its metadata lack `architecture`")
        return SparseAutoencoder.from_tensors(tensors, metadata["architecture"], _k(metadata.get("k", "0")))
    except (ValueError, DamagedError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _k(text: str) -> int | None:
    try:
        return int(text) or None
    except ValueError:
        raise ValueError(f"its metadata give k as {text!r}; a whole number is wanted") from None


def _take(run: RunDirectory, snapshot: SnapshotRecord, path: Path, sae: SparseAutoencoder) -> SaeRecord:
    if sae.d_in != snapshot.d_in:
        raise ValueError(
            f"{path.name} is for activations of width {sae.d_in}, those of {snapshot.site} are {snapshot.d_in} wide"
        )
    activations = load_activations(run, snapshot)
    codes, metrics = sae.encode_sparse(activations), evaluate(sae, activations)
    record = SaeRecord(
        site=snapshot.site,
        branch=snapshot.branch,
        arm="chain",
        step=snapshot.step,
        architecture=sae.architecture,
        n_latents=sae.n_latents,
        k=sae.k,
        **asdict(metrics),
        imported=True,
    )
    written = write_sae(run, record, sae.tensors(), latents_table(codes), contexts_table(codes))
    _require_same(run, written, sae, path)
    return written


def _require_same(run: RunDirectory, written: SaeRecord, sae: SparseAutoencoder, path: Path) -> None:
    """Raises FileExistsError where another SAE was at the step, which then still is."""
    there, given = load_sae(run, written), sae.tensors()
    same = there.tensors().keys() == given.keys() and all(torch.equal(t, given[n]) for n, t in there.tensors().items())
    if not written.imported or not same or written.k != sae.k:
        made = "imported" if written.imported else "trained"
        raise FileExistsError(
            f"{path.name}: another SAE of {written.site} was {made} at step {written.step} before; "
            "what is committed never changes: use another run directory"
        )


def notes_on_imported(records: Sequence[SaeRecord], gaps: Sequence[int]) -> list[str]:
    """What one must know to read the history of SAEs that were made elsewhere.

    Args:
        records: the imported SAEs of a site.
        gaps: steps of its other snapshots, whose SAEs are trained here.
    """
    notes = []
    if records and gaps:
        steps = f"step {gaps[0]}" if len(gaps) == 1 else f"{len(gaps)} steps ({listed(gaps)})"
        notes.append(
            f"no SAE was imported at {steps}: `dynamics analyze` trains one of the same form there, whose quality may "
            "be another"
        )
    sizes = [
        _span(name, values) for name in ("n_latents", "k") if len(values := {getattr(r, name) for r in records}) > 1
    ]
    if sizes:
        notes.append(
            f"the imported SAEs differ in size ({' and '.join(sizes)}): where the size changes, features may seem to "
            "come, go or split for that reason alone, which the null, of one size, does not show"
        )
    return notes


def _span(name: str, values: set[int]) -> str:
    return f"{name} {min(values)} to {max(values)}"
