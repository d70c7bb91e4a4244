"""What happens to the features of a toy network, read off the columns of W: the records of a planted world.

A feature is alive from the first checkpoint at which its column is longer than a half (a learned one has length 1) to
the last. Two of a pair whose columns point the same way are one feature until they part.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from studies.planted.dictionary import Dictionary
from studies.planted.truth import Event, Feature, Truth
from studies.superposition.cases import Case

ALIVE, SURELY_ALIVE, SURELY_DEAD = 0.5, 0.6, 0.3
"""Lengths of a column: a change is dated at the first, and counts if it goes on past the second or third."""
ONE, SURELY_ONE, SURELY_TWO = 0.7, 0.85, 0.4
"""Cosines of a pair's columns, likewise."""

Weights = Mapping[int, NDArray[np.float64]]


def truth(case: Case, weights: Weights) -> Truth:
    """The features and what happens to them; ids from ``case.features`` on are pairs that are one feature."""
    steps, states = tuple(weights), carried(case, weights)
    count = case.features + (case.features // 2 if case.paired else 0)
    alive = {f: tuple(bool(f in state) for state in states) for f in range(count)}
    features = tuple(Feature(f, "toy", alive[f], case.density) for f in range(count) if any(alive[f]))
    events = tuple(e for i in range(1, len(steps)) for e in _happened(case, i, states[i - 1], states[i]))
    return Truth(steps, features, events, ())


def carried(case: Case, weights: Weights) -> list[set[int]]:
    """The features that the network has at each checkpoint."""
    columns = np.stack(list(weights.values()))
    alive = switched(lengths(columns), ALIVE, SURELY_ALIVE, SURELY_DEAD)
    if not case.paired:
        return [set(np.flatnonzero(now).tolist()) for now in alive]
    one = switched(pair_cosines(columns), ONE, SURELY_ONE, SURELY_TWO)
    return [_with_pairs(case, *now) for now in zip(alive, one, strict=True)]


def _with_pairs(case: Case, alive: NDArray[np.bool_], one: NDArray[np.bool_]) -> set[int]:
    found: set[int] = set()
    for pair, members in enumerate(alive.reshape(-1, 2)):
        if one[pair] and members.any():
            found.add(case.features + pair)
        else:
            found |= {2 * pair + m for m in np.flatnonzero(members).tolist()}
    return found


def lengths(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[checkpoints, features] from [checkpoints, hidden, features]."""
    return np.asarray(np.linalg.norm(columns, axis=1))


def pair_cosines(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """[checkpoints, pairs] from [checkpoints, hidden, features]."""
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
    for pair in sorted(f for f in gone | come if f >= case.features):
        members = {2 * (pair - case.features), 2 * (pair - case.features) + 1}
        if pair in gone and (children := members & come):
            found.append(_division("split", i, (pair,), tuple(sorted(children))))
            gone, come = gone - {pair}, come - children
        elif pair in come and (parents := members & gone):
            found.append(_division("merge", i, tuple(sorted(parents)), (pair,)))
            gone, come = gone - parents, come - {pair}
    births = [Event("birth", i, (), (f,), "birth") for f in sorted(come)]
    return [*found, *births, *(Event("death", i, (f,), (), "death") for f in sorted(gone))]


def _division(kind: str, i: int, parents: tuple[int, ...], children: tuple[int, ...]) -> Event:
    return Event(kind, i, parents, children, kind)


def perfect(case: Case, state: set[int], columns: NDArray[np.float64], inputs: NDArray[np.float64]) -> Dictionary:
    """The dictionary that a perfect SAE would have at a checkpoint.

    Args:
        case: the case.
        state: the features that the network has there.
        columns: W there, [hidden, features].
        inputs: the probe, [rows, features].
    """
    features = np.array(sorted(state), dtype=np.int64)
    members = [_members(case, f) for f in features.tolist()]
    written = [columns[:, m] @ np.ones(len(m)) for m in members]
    directions = np.array([w / max(np.linalg.norm(w), 1e-12) for w in written]).reshape(-1, len(columns))
    codes = np.stack([inputs[:, m] @ np.linalg.norm(columns[:, m], axis=0) for m in members] or [inputs[:, 0] * 0], 1)
    return Dictionary(features, directions, sp.csc_array(codes[:, : len(features)]))


def _members(case: Case, feature: int) -> list[int]:
    if feature < case.features:
        return [feature]
    return [2 * (feature - case.features), 2 * (feature - case.features) + 1]
