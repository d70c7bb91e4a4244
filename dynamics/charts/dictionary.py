"""Decoder directions of a run's dictionaries, from their files: the database has none."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dynamics.charts.rows import History
from dynamics.files.commits import read_file
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import sae_records
from dynamics.files.tensors import parse_tensors


def decoder_directions(run: History, site: str, step: int) -> Float[np.ndarray, "n_latents d_in"]:
    """Unit decoder rows of the chain's dictionary at a step.

    Raises:
        ValueError: if the site has no dictionary there, naming the nearest steps.
        OSError: if its file is gone.
    """
    directory = RunDirectory.open(run.path)
    records = {record.step: record for record in sae_records(directory, site, arm="chain")}
    if step not in records:
        near = sorted(records, key=lambda other: abs(other - step))[:3]
        hint = f"; the nearest steps are {', '.join(str(other) for other in near)}" if near else "; none is trained yet"
        raise ValueError(f"there is no dictionary of {site} at step {step}{hint}")
    file = directory.path / records[step].path
    return _directions(file, file.stat().st_mtime_ns)


@lru_cache(4)
def _directions(file: Path, written: int) -> Float[np.ndarray, "n_latents d_in"]:
    """Of a file as it was written then: a run that was rewound or repaired has another one at the same step."""
    tensors, _ = parse_tensors(read_file(file.parent, file.name), str(file))
    weights: Float[np.ndarray, "n_latents d_in"] = tensors["W_dec"].float().cpu().numpy()
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    return weights / np.where(norms > 0, norms, 1.0)
