"""What the fits of a site read: usable activations, and which rows an SAE is trained on."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dynamics.files.layout import BRANCH, RunDirectory
from dynamics.files.probes import load_probe
from dynamics.files.settings import load_settings, write_settings
from dynamics.files.snapshots import SnapshotRecord, load_activations, snapshots
from dynamics.sae.config import SaeConfig
from dynamics.sae.series import held_out_rows

LARGEST = 1e17
"""Above it a float32 sum of squares overflows."""


class Unusable(ValueError):
    """A snapshot that no SAE can be trained on, however often it is tried. The message says why."""


def settings(run: RunDirectory) -> SaeConfig:
    """The SAE settings of the run; the defaults, written down, where nobody chose any."""
    found = load_settings(run)
    if found is None:
        found = SaeConfig()
        write_settings(run, found)
    return found


def usable_activations(run: RunDirectory, record: SnapshotRecord) -> Float[Tensor, "rows d_in"]:
    """Raw activations of a snapshot.

    Raises:
        Unusable: if they are not finite, constant, or not comparable with the first snapshot of the site.
    """
    first = snapshots(run, record.site, record.branch)[0]
    if record.d_in != first.d_in:
        raise Unusable(f"width {record.d_in}, was {first.d_in} at step {first.step}: not comparable")
    if record.probe != first.probe or record.rows != first.rows:
        raise Unusable(f"the probe changed since step {first.step}: features before and after are not comparable")
    x = load_activations(run, record)
    require_finite(x)
    require_variance(x)
    return x


def require_finite(x: Float[Tensor, "rows d_in"]) -> None:
    """Raises Unusable where activations are not numbers that can be reckoned with."""
    bad = ~(x.abs() <= LARGEST)
    if bool(bad.any()):
        raise Unusable(f"nonfinite: {float(bad.float().mean()):.2%} NaN, Inf or beyond {LARGEST:g}")


def require_variance(x: Float[Tensor, "rows d_in"]) -> None:
    """Float32 values that all mean the same differ by 1e-7 of themselves, squared 1e-14."""
    exact = x.double()
    variance, power = (exact - exact.mean(0)).square().sum(), exact.square().sum()
    if float(variance) <= 1e-13 * float(power):
        raise Unusable("constant: every probe row has the same activations")


def held_out(run: RunDirectory, record: SnapshotRecord, config: SaeConfig) -> Bool[np.ndarray, " rows"]:
    """True where a row is kept from training: whole sequences of the probe, the same at every step."""
    return held_out_rows(load_probe(run, record.probe).sequence, config.held_out)


def seeded(config: SaeConfig, *names: object) -> torch.Generator:
    """A generator that depends on the run's seed and the names alone, so that a job can be done again.

    It is the same in every branch: where two are alike, so are their SAEs, and a null chain may go on beyond a fork.
    """
    digest = hashlib.sha256("\0".join(map(str, (config.seed, BRANCH, *names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
