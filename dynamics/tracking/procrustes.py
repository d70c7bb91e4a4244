"""The turn of a whole activation space between two checkpoints."""

from __future__ import annotations

import numpy as np
import scipy.linalg as la
from jaxtyping import Float


def procrustes(
    earlier: Float[np.ndarray, "rows d_in"], later: Float[np.ndarray, "rows d_in"]
) -> tuple[Float[np.ndarray, "d_in d_in"], float]:
    """The orthogonal map R that brings ``earlier @ R`` nearest to ``later``, and the residual's share of the variance.

    Orthogonal Procrustes (Schönemann 1966), for scaled activations of the same rows.
    """
    u, values, vt = _svd(earlier.T @ later)
    total = float(np.square(earlier).sum() + np.square(later).sum())
    residual = max(0.0, 1 - 2 * float(values.sum()) / max(total, 1e-12))
    return np.asarray(u @ vt, dtype=np.float32), residual


def nearest_orthogonal(matrix: Float[np.ndarray, "d_in d_in"]) -> Float[np.ndarray, "d_in d_in"]:
    """The orthogonal map R with the largest ⟨R, ``matrix``⟩."""
    u, _, vt = _svd(matrix)
    return np.asarray(u @ vt, dtype=np.float32)


def _svd(
    matrix: Float[np.ndarray, "d_in d_in"],
) -> tuple[Float[np.ndarray, "d_in d_in"], Float[np.ndarray, " d_in"], Float[np.ndarray, "d_in d_in"]]:
    """In double precision: among many singular values that are almost equal, LAPACK gives up in single.

    Where it gives up all the same, its slower driver does not.
    """
    double = matrix.astype(np.float64)
    try:
        u, values, vt = la.svd(double, check_finite=False)
    except la.LinAlgError:
        u, values, vt = la.svd(double, check_finite=False, lapack_driver="gesvd")
    return u, values, vt
