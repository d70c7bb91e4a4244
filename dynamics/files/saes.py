"""The autoencoders of a run on disk, with what each latent does on the probe."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.files.commits import DamagedError, commit, is_committed, read_commit, read_file
from dynamics.files.layout import BRANCH, RunDirectory, folder_name, step_of
from dynamics.files.tensors import parse_tensors, tensor_bytes
from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.metrics import latent_statistics, top_rows

FILE = "sae.safetensors"
LATENTS = pa.schema(
    {"latent": pa.int64(), "density": pa.float64(), "mean_activation": pa.float64(), "max_activation": pa.float64()}
)
CONTEXTS = pa.schema({"latent": pa.int64(), "rank": pa.int64(), "row": pa.int64(), "activation": pa.float64()})


@dataclass(frozen=True, kw_only=True)
class SaeRecord:
    """What is known about an SAE without reading its tensors."""

    site: str
    arm: str
    """``chain``, ``null`` or ``seed``."""
    step: int
    """Optimiser step of the snapshot that it explains."""
    architecture: str
    n_latents: int
    fvu: float
    """Fraction of variance unexplained, on rows held out from its training."""
    l0: float
    """Mean firing latents per row."""
    dead: float
    """Share of latents that never fire, on the same rows."""
    branch: str = BRANCH
    seed: int = 0
    k: int | None = None
    revived: int = 0
    """Silent latents that were given new directions, before or while it was trained."""
    restarted: bool = False
    """Whether the chain was begun anew here."""
    imported: bool = False
    """Made elsewhere, not trained by us."""
    rules: int = 0
    """Of the null arm: the version of the rules that its surrogate snapshots were made by."""
    geometry: dict[str, float] = field(default_factory=dict)
    """Measured on the snapshot: scale, effective_rank, top_share, procrustes_residual."""
    path: str = ""
    """The file of tensors, from the run directory; filled in by ``write_sae``."""


def write_sae(
    run: RunDirectory,
    record: SaeRecord,
    tensors: dict[str, Tensor],
    latents: pa.Table,
    contexts: pa.Table | None = None,
) -> SaeRecord:
    """Commit an SAE in raw activation units, the statistics of its latents and, for the chain, their strongest rows.

    An SAE that is committed already stays as it is: a job may be done twice.

    Args:
        run: where to.
        record: what it is; ``path`` is filled in.
        tensors: ``W_enc [d_in, n]``, ``b_enc [n]``, ``W_dec [n, d_in]``, ``b_dec [d_in]``.
        latents: columns latent, density, mean_activation, max_activation; one row a latent.
        contexts: columns latent, rank, row, activation.
    """
    name = f"step_{record.step:08d}.seed{record.seed}"
    folder = run.saes(record.site, record.branch) / folder_name(record.arm) / name
    path = run.relative(folder / FILE)
    if is_committed(folder):
        return _record(read_commit(folder), path)
    facts = asdict(record)
    del facts["path"]
    metadata = {"architecture": record.architecture} | ({} if record.k is None else {"k": str(record.k)})
    files = {FILE: tensor_bytes(tensors, metadata), "latents.parquet": parquet_bytes(_cast(latents, LATENTS))}
    if contexts is not None:
        files["contexts.parquet"] = parquet_bytes(_cast(contexts, CONTEXTS))
    commit(folder, facts, files)
    return replace(record, path=path)


def latents_table(codes: csr_array) -> pa.Table:
    """What each latent of ``codes [rows, latents]`` does, one row a latent."""
    found = latent_statistics(codes)
    return pa.table({"latent": np.arange(len(found.density)), **asdict(found)})


def contexts_table(codes: csr_array) -> pa.Table:
    """The strongest rows of every latent of ``codes [rows, latents]``."""
    return pa.table(asdict(top_rows(codes)))


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.select(schema.names).cast(schema)


def parquet_bytes(table: pa.Table) -> bytes:
    """``table`` as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def sae_records(run: RunDirectory, site: str, arm: str | None = None, branch: str | None = None) -> list[SaeRecord]:
    """The committed SAEs of a site, of every arm or of one, ordered by arm, seed and step; by timeline as snapshots.

    Raises:
        DamagedError: if a commit record does not parse.
    """
    arms = "*" if arm is None else folder_name(arm)
    folders = [
        folder
        for part in run.timeline(branch).parts
        for folder in run.saes(site, part.branch).glob(f"{arms}/step_*")
        if step_of(folder) in part
    ]
    records = [_record(read_commit(folder), run.relative(folder / FILE)) for folder in folders if is_committed(folder)]
    return sorted(records, key=lambda record: (record.arm, record.seed, record.step))


def _record(committed: dict[str, Any], path: str) -> SaeRecord:
    known = {field.name for field in fields(SaeRecord)}
    try:
        return SaeRecord(**{**{name: value for name, value in committed.items() if name in known}, "path": path})
    except TypeError:
        raise DamagedError(f"the commit record of {path} is damaged: it names no site, arm or step") from None


def load_sae(run: RunDirectory, record: SaeRecord) -> SparseAutoencoder:
    """The SAE of a record, in raw activation units.

    Raises:
        FileNotFoundError: if it is not there.
        DamagedError: if its file is missing or damaged.
    """
    path = run.path / record.path
    tensors, _ = parse_tensors(read_file(path.parent, path.name), str(path))
    return SparseAutoencoder.from_tensors(tensors, record.architecture, record.k)


def load_latents(run: RunDirectory, record: SaeRecord) -> pa.Table:
    """Columns latent, density (share of probe rows), mean_activation (over firing rows), max_activation."""
    return _table(run, record, "latents.parquet")


def load_contexts(run: RunDirectory, record: SaeRecord) -> pa.Table:
    """Columns latent, rank, row, activation; empty for an arm whose contexts are not kept."""
    folder = (run.path / record.path).parent
    if "contexts.parquet" not in read_commit(folder)["files"]:
        return CONTEXTS.empty_table()
    return _table(run, record, "contexts.parquet")


def _table(run: RunDirectory, record: SaeRecord, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(read_file((run.path / record.path).parent, name)))
