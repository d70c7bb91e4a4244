"""Decoder directions of a run's dictionaries, from their files: the database has none."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dynamics.charts.rows import History
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import load_sae, sae_records


def decoder_directions(run: History, site: str, step: int) -> Float[np.ndarray, "n_latents d_in"]:
    """Unit decoder rows of the chain's dictionary at a step.

    Raises:
        ValueError: if the site has no dictionary there, naming the nearest steps.
        OSError: if its file is gone.
    """
    return _directions(run.path, site, step)


@lru_cache(4)  # what was committed never changes
def _directions(path: Path, site: str, step: int) -> Float[np.ndarray, "n_latents d_in"]:
    directory = RunDirectory.open(path)
    records = {record.step: record for record in sae_records(directory, site, arm="chain")}
    if step not in records:
        near = sorted(records, key=lambda other: abs(other - step))[:3]
        hint = f"; the nearest steps are {', '.join(str(other) for other in near)}" if near else "; none is trained yet"
        raise ValueError(f"there is no dictionary of {site} at step {step}{hint}")
    weights: Float[np.ndarray, "n_latents d_in"] = load_sae(directory, records[step]).W_dec.detach().cpu().numpy()
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    return weights / np.where(norms > 0, norms, 1.0)
