"""SAEs that other programs made: a directory of ``step_<n>.safetensors``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from dynamics.files.commits import DamagedError
from dynamics.files.importing import step_files
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import SaeRecord, write_sae
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots
from dynamics.files.tensors import parse_tensors
from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.metrics import evaluate, latent_statistics, top_rows

FORMATS = ("dynamics", "saelens", "dictionary_learning", "sparsify")


def import_saes(
    directory: str | Path,
    run: RunDirectory,
    site: str,
    format: str = "dynamics",
    on_step: Callable[[int, int], None] | None = None,
) -> list[SaeRecord]:
    """Take the SAEs of one site from ``step_<n>.safetensors`` files into a run, as its chain.

    Only steps whose snapshot is in the run are taken: import the snapshots first. What is said about each SAE is
    measured on all rows of the probe.

    Args:
        directory: where the files are.
        run: where they go.
        site: the module whose output they explain.
        format: ``dynamics``: ``W_enc [d_in, n]``, ``b_enc [n]``, ``W_dec [n, d_in]`` with unit rows, ``b_dec [d_in]``,
            for threshold kinds ``threshold [n]``, metadata ``architecture`` and ``k``, in raw activation units.
        on_step: called with (files done, files in all) after each.

    Raises:
        FileNotFoundError: if the directory or a file is not there, or the run has no snapshot at any of the steps.
        ValueError: if the format is unknown, or a file holds no such SAE, naming it.
    """
    _check_format(format)
    files = step_files(Path(directory))
    known = {record.step: record for record in snapshots(run, site)}
    steps = sorted(files.keys() & known.keys())
    if not steps:
        raise FileNotFoundError(
            f"the run has no snapshot of {site} at the steps of these SAEs ({min(files)} to {max(files)}); "
            f"it has {_listed(sorted(known)) or 'none of that site'}: import the snapshots first"
        )
    records = []
    for done, step in enumerate(steps, start=1):
        records.append(_take(run, known[step], files[step]))
        if on_step is not None:
            on_step(done, len(steps))
    return records


def _check_format(format: str) -> None:
    if format not in FORMATS:
        near = difflib.get_close_matches(format, FORMATS, n=1)
        hint = f"; did you mean {near[0]!r}? There" if near else "; there"
        raise ValueError(f"unknown format {format!r}{hint} are: {', '.join(FORMATS)}")
    if format != "dynamics":
        raise ValueError(f"SAEs in the format {format} cannot be read yet; convert them to the format dynamics")


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:6])) + (", …" if len(steps) > 6 else "")


def read_sae(path: Path) -> SparseAutoencoder:
    """The SAE in a file of the format ``dynamics``.

    Raises:
        ValueError: if it holds none, naming the file.
    """
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


def _take(run: RunDirectory, snapshot: SnapshotRecord, path: Path) -> SaeRecord:
    sae = read_sae(path)
    if sae.d_in != snapshot.d_in:
        raise ValueError(
            f"{path.name} is for activations of width {sae.d_in}, those of {snapshot.site} are {snapshot.d_in} wide"
        )
    activations = load_activations(run, snapshot)
    codes, metrics = sae.encode_sparse(activations), evaluate(sae, activations)
    statistics, top = latent_statistics(codes), top_rows(codes)
    record = SaeRecord(
        site=snapshot.site,
        branch=snapshot.branch,
        arm="chain",
        step=snapshot.step,
        architecture=sae.architecture,
        n_latents=sae.n_latents,
        k=sae.k,
        fvu=metrics.fvu,
        l0=metrics.l0,
        dead=metrics.dead,
    )
    latents = pa.table(
        {
            "latent": pa.array(range(sae.n_latents), pa.int64()),
            "density": statistics.density,
            "mean_activation": statistics.mean_activation,
            "max_activation": statistics.max_activation,
        }
    )
    contexts = pa.table({"latent": top.latent, "rank": top.rank, "row": top.row, "activation": top.activation})
    return write_sae(run, record, sae.tensors(), latents, contexts)
