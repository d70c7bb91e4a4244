"""The SAEs of a site for other programs: one for every step of its chain."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from dynamics.files.atomic import write_bytes
from dynamics.files.foreign_saes import write_foreign_sae
from dynamics.files.importing_saes import check_format, listed
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import SaeRecord, load_sae, sae_records
from dynamics.files.tensors import tensor_bytes
from dynamics.sae.autoencoder import SparseAutoencoder


def export_saes(
    run: RunDirectory,
    site: str,
    directory: str | Path,
    format: str,
    steps: Collection[int] = (),
    on_step: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the SAEs of one site as another library reads them, in raw activation units.

    Args:
        run: where they are.
        site: the module whose output they explain.
        directory: gets ``step_<n>/`` with the library's own files, or ``step_<n>.safetensors`` of the format
            ``dynamics``.
        format: ``saelens``, ``dictionary_learning``, ``sparsify`` or ``dynamics``; ``import_saes`` reads all of them.
        steps: which ones; all without.
        on_step: called with (SAEs done, SAEs in all) after each.

    Raises:
        FileNotFoundError: if the site has no SAE, or none at one of the steps.
        FileExistsError: if something is in the way.
        ValueError: if the format is unknown, or its library has no such SAEs.
    """
    check_format(format)
    records = _chosen(run, site, steps)
    paths = [Path(directory) / (f"step_{r.step}" + ".safetensors" * (format == "dynamics")) for r in records]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already; export into a new directory")
    for done, (record, path) in enumerate(zip(records, paths, strict=True), start=1):
        _write(path, format, load_sae(run, record), site)
        if on_step is not None:
            on_step(done, len(records))
    return paths


def _chosen(run: RunDirectory, site: str, steps: Collection[int]) -> list[SaeRecord]:
    records = {record.step: record for record in sae_records(run, site, "chain")}
    if not records:
        raise FileNotFoundError(
            f"the run has no SAE of {site}: `dynamics sites` lists its sites, `analyze` trains them"
        )
    if missing := sorted(set(steps) - set(records)):
        raise FileNotFoundError(
            f"there is no SAE of {site} at step {listed(missing)}; there is at {listed([*records])}"
        )
    return [record for step, record in records.items() if not steps or step in steps]


def _write(path: Path, format: str, sae: SparseAutoencoder, site: str) -> None:
    if format != "dynamics":
        write_foreign_sae(path, format, sae, site)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"architecture": sae.architecture} | ({} if sae.k is None else {"k": str(sae.k)})
    write_bytes(path, tensor_bytes(sae.tensors(), metadata))
