"""The dictionary that a perfect SAE would have at a checkpoint, with the artefacts that were planned for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from studies.planted.plan import Plan, unit


@dataclass(frozen=True)
class Dictionary:
    """Latents in the order of their features, planted duplicates behind."""

    features: NDArray[np.int64]
    """True feature of each latent; one listed twice is a planted duplicate."""
    directions: NDArray[np.float64]
    """[latents, d], unit rows."""
    codes: sp.csc_array
    """[rows, latents]"""

    def where(self, feature: int) -> int:
        """The first latent of a feature."""
        return int(np.flatnonzero(self.features == feature)[0])


def dictionary(plan: Plan, i: int, codes: sp.csr_array, seed: int) -> Dictionary:
    """The dictionary at checkpoint i, given the codes of the atoms there: [rows, atoms].

    Its codes and directions are those of the atoms: before the turn of the space and the scale of the activations.
    """
    found = _alive(plan, i, codes)
    for at, parent, child in plan.absorbed:
        if i >= at:
            found = _absorbed(found, found.where(parent), found.where(child))
    for at, feature in plan.duplicated:
        if i >= at:
            first = np.random.default_rng([seed, 102, feature]).random(codes.shape[0]) < 0.5
            found = _duplicated(found, found.where(feature), first)
    return found


def _alive(plan: Plan, i: int, codes: sp.csr_array) -> Dictionary:
    of_atom = np.array([atom.feature[i] for atom in plan.atoms])
    atoms = np.flatnonzero(of_atom >= 0)
    features = np.unique(of_atom[atoms])
    belongs = np.zeros((len(of_atom), len(features)))
    belongs[atoms, np.searchsorted(features, of_atom[atoms])] = 1
    mass = np.asarray(codes.sum(axis=0)).ravel() + 1e-9
    directions = np.stack([atom.direction[i] for atom in plan.atoms])
    whole = unit(belongs.T @ (mass[:, None] * directions))
    return Dictionary(features, whole, sp.csc_array(codes @ sp.csc_array(belongs)))


def _absorbed(found: Dictionary, parent: int, child: int) -> Dictionary:
    """The parent is silent on the child's rows; the child points where both together pointed."""
    inside = sp.csc_array(found.codes[:, [child]] > 0)
    kept = found.codes[:, [parent]] - found.codes[:, [parent]].multiply(inside)
    directions = found.directions.copy()
    directions[child] = unit(directions[child] + directions[parent])
    return replace(found, directions=directions, codes=_with_column(found.codes, parent, kept))


def _duplicated(found: Dictionary, latent: int, first: NDArray[np.bool_]) -> Dictionary:
    """A second latent of the same direction takes the rows that are not ``first``."""
    column = found.codes[:, [latent]].toarray()
    codes = _with_column(found.codes, latent, sp.csc_array(column * first[:, None]))
    return Dictionary(
        np.append(found.features, found.features[latent]),
        np.vstack([found.directions, found.directions[latent]]),
        sp.csc_array(sp.hstack([codes, sp.csc_array(column * ~first[:, None])])),
    )


def _with_column(matrix: sp.csc_array, where: int, column: sp.csc_array) -> sp.csc_array:
    parts = [matrix[:, :where], sp.csc_array(column), matrix[:, where + 1 :]]
    return sp.csc_array(sp.hstack([part for part in parts if part.shape[1]]))
