"""What happens to the features of toy networks, read off the columns of W: the records of a planted world.

A feature is alive from the first checkpoint at which its column is longer than a half (a learned one has length 1) to
the last. Two of a pair whose columns point the same way are one feature until they part.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import block_diag

from studies.planted.dictionary import Dictionary
from studies.planted.truth import Event, Feature, Truth
from studies.superposition.cases import Case

ALIVE, SURELY_ALIVE, SURELY_DEAD = 0.5, 0.6, 0.3
"""Lengths of a column: a change is dated at the first, and counts if it goes on past the second or third."""
ONE, SURELY_ONE, SURELY_TWO = 0.7, 0.85, 0.4
"""Cosines of a pair's columns, likewise."""

Weights = Mapping[int, NDArray[np.float64]]


def truth(case: Case, weights: Weights) -> Truth:
    """The features and what happens to them; ``numbered`` says which is which."""
    steps, states = tuple(weights), carried(case, weights)
    features = tuple(
        Feature(f, "toy", tuple(f in state for state in states), case.density) for f in sorted(set().union(*states))
    )
    events = tuple(e for i in range(1, len(steps)) for e in _happened(case, i, states[i - 1], states[i]))
    return Truth(steps, features, events, ())


def numbered(case: Case, feature: int) -> tuple[int, ...]:
    """The columns of the joined W that a feature is: itself, or behind the last single one the two of a pair."""
    single = case.instances * case.features
    return (feature,) if feature < single else (2 * (feature - single), 2 * (feature - single) + 1)


def carried(case: Case, weights: Weights) -> list[set[int]]:
    """The features that the networks have at each checkpoint."""
    columns = np.stack([joined(W) for W in weights.values()])
    alive = switched(lengths(columns), ALIVE, SURELY_ALIVE, SURELY_DEAD)
    if not case.paired:
        return [set(np.flatnonzero(now).tolist()) for now in alive]
    one = switched(pair_cosines(columns), ONE, SURELY_ONE, SURELY_TWO)
    return [_with_pairs(*now) for now in zip(alive, one, strict=True)]


def joined(W: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of all instances in the space of the site: [instances · hidden, instances · features]."""
    return np.asarray(block_diag(*W))


def _with_pairs(alive: NDArray[np.bool_], one: NDArray[np.bool_]) -> set[int]:
    found: set[int] = set()
    for pair, members in enumerate(alive.reshape(-1, 2)):
        together = one[pair] and members.any()
        found |= {len(alive) + pair} if together else {2 * pair + m for m in np.flatnonzero(members).tolist()}
    return found


def lengths(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[checkpoints, features] from [checkpoints, d_in, features]."""
    return np.asarray(np.linalg.norm(columns, axis=1))


def pair_cosines(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[checkpoints, pairs] from [checkpoints, d_in, features]."""
    units = columns / np.maximum(lengths(columns)[:, None], 1e-12)
    return np.asarray((units[:, :, ::2] * units[:, :, 1::2]).sum(1))


def switched(curves: NDArray[np.float64], middle: float, surely_on: float, surely_off: float) -> NDArray[np.bool_]:
    """Whether each curve [checkpoints, curves] is on: it switches where it crosses the middle for good.

    A crossing counts if the curve reaches the sure value before it crosses back.
    """
    states = np.empty(curves.shape, dtype=bool)
    for n, curve in enumerate(curves.T):
        above, on = curve >= middle, bool(curve[0] >= middle)
        for i in range(len(curve)):
            if above[i] != on:
                back = next((j for j in range(i, len(curve)) if above[j] == on), len(curve))
                span = curve[i:back]
                if (span.min() <= surely_off) if on else (span.max() >= surely_on):
                    on = not on
            states[i, n] = on
    return states


def _happened(case: Case, i: int, before: set[int], now: set[int]) -> list[Event]:
    gone, come = before - now, now - before
    found = []
    for pair in sorted(f for f in gone | come if len(numbered(case, f)) == 2):
        members = set(numbered(case, pair))
        if pair in gone and (children := members & come):
            found.append(Event("split", i, (pair,), tuple(sorted(children)), "split"))
            gone, come = gone - {pair}, come - children
        elif pair in come and (parents := members & gone):
            found.append(Event("merge", i, tuple(sorted(parents)), (pair,), "merge"))
            gone, come = gone - parents, come - {pair}
    births = [Event("birth", i, (), (f,), "birth") for f in sorted(come)]
    return [*found, *births, *(Event("death", i, (f,), (), "death") for f in sorted(gone))]


def between(case: Case, W: NDArray[np.float64]) -> set[int]:
    """Features of pairs that are just parting or joining: no latent shows clearly whether they are one or two."""
    if not case.paired:
        return set()
    [cosines] = pair_cosines(joined(W)[None])
    unsure = np.flatnonzero((cosines > SURELY_TWO) & (cosines < SURELY_ONE)).tolist()
    single = case.instances * case.features
    return {feature for pair in unsure for feature in (2 * pair, 2 * pair + 1, single + pair)}


def perfect(case: Case, state: set[int], W: NDArray[np.float64], inputs: NDArray[np.float64]) -> Dictionary:
    """The dictionary that a perfect SAE would have at a checkpoint.

    Args:
        case: the case.
        state: the features that the networks have there.
        W: as it is there, [instances, hidden, features].
        inputs: the probe, [rows, instances, features].
    """
    columns, x = joined(W), inputs.reshape(len(inputs), -1)
    features = np.array(sorted(state), dtype=np.int64)
    directions = np.zeros((len(features), len(columns)))
    codes = np.zeros((len(x), len(features)))
    for n, feature in enumerate(features.tolist()):
        members = list(numbered(case, feature))
        directions[n] = columns[:, members].sum(1)
        codes[:, n] = x[:, members] @ np.linalg.norm(columns[:, members], axis=0)
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    return Dictionary(features, directions, sp.csc_array(codes))
