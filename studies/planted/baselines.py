"""The rules in use elsewhere, on the same dictionaries, as reports that are scored like ours.

Each rule looks at two consecutive checkpoints at a time and says which latents continue, split and merge; what is left
over is born or dead. None has a gap closing, so none reports dormancy; none reports rotation, drift or transitions.

- ``same index``: latent i stays latent i while it is live (SAE-Track, 2412.17626, which warm-starts every SAE).
- ``Hungarian 0.7``: the assignment that maximises the sum of decoder cosines, kept where the cosine is at least 0.7
  (the threshold of Paulo & Belrose, 2501.16615).
- ``mutual 0.7``: pairs that are each other's nearest, at cosine 0.7 or more.
- ``Feature Genesis``: Hungarian on a mean of similarities after a Procrustes rotation of the decoders, continuation at
  0.74; a split where the two best targets at 0.58 or more add up to 1.15, a merge likewise. Of its three similarities
  the third needs concept labels, which planted worlds lack: here it is the mean of decoder cosine and code cosine.

Neither source of the rules at 0.7 says how to find splits; here a latent splits where it has two or more partners at
0.7 that continue nothing else, and merges likewise. Counting partners that continue another latent too only adds false
splits (of features that merely are near each other).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from studies.planted.report import Report, Row

Floats = NDArray[np.floating[Any]]
SPLIT_PARTS = 4  # at most this many children are named


@dataclass(frozen=True)
class Shown:
    """What a rule may look at: the dictionary of one checkpoint."""

    decoder: Floats
    """[latents, d]"""
    codes: sp.csr_array
    """[rows, latents]. A latent that never fires is dead."""

    @cached_property
    def live(self) -> NDArray[np.int64]:
        """The latents that fire at all."""
        return np.flatnonzero(np.diff(sp.csc_array(self.codes).indptr))


@dataclass(frozen=True)
class Relations:
    """What a rule says about two checkpoints; latents by number."""

    links: list[tuple[int, int]]
    splits: dict[int, list[int]]
    merges: dict[int, list[int]]


Rule = Callable[[Shown, Shown], Relations]


def same_index(a: Shown, b: Shown) -> Relations:
    """Every latent that is live at both checkpoints continues as itself."""
    return Relations([(int(i), int(i)) for i in np.intersect1d(a.live, b.live)], {}, {})


def hungarian(a: Shown, b: Shown, threshold: float = 0.7) -> Relations:
    """The assignment that maximises the sum of cosines, kept from ``threshold`` on."""
    score = _cosines(a, b)
    return _with_leftovers(a, b, score, _assigned(a, b, score, threshold), threshold)


def mutual(a: Shown, b: Shown, threshold: float = 0.7) -> Relations:
    """Pairs that are each other's nearest by cosine, from ``threshold`` on."""
    score, links = _cosines(a, b), []
    live = score[np.ix_(a.live, b.live)]
    if live.size:
        forth, back = live.argmax(axis=1), live.argmax(axis=0)
        pairs = [(i, j) for i, j in enumerate(forth) if back[j] == i and live[i, j] >= threshold]
        links = [(int(a.live[i]), int(b.live[j])) for i, j in pairs]
    return _with_leftovers(a, b, score, links, threshold)


def feature_genesis(a: Shown, b: Shown) -> Relations:
    """Hungarian on the mean of rotated decoder cosine and code cosine, at 0.74; parts at 0.58 adding up to 1.15."""
    turned = Shown(a.decoder @ _procrustes(a, b), a.codes)
    score = (np.maximum(_cosines(turned, b), 0) + _code_cosines(a, b)) / 2
    splits, merges = _parts(a.live, b.live, score, 0.58, 1.15), _parts(b.live, a.live, score.T, 0.58, 1.15)
    return Relations(_assigned(a, b, score, 0.74), splits, merges)


RULES: dict[str, Rule] = {
    "same index": same_index,
    "Hungarian 0.7": hungarian,
    "mutual 0.7": mutual,
    "Feature Genesis": feature_genesis,
}


def report(rule: Rule, dictionaries: Mapping[int, Shown]) -> Report:
    """What a rule says about a whole history.

    Args:
        rule: one of ``RULES``.
        dictionaries: the dictionary of each step.
    """
    steps = sorted(dictionaries)
    events: list[Row] = []
    links: list[Row] = []
    track_of: dict[tuple[int, int], int] = {}
    history: list[Row] = []
    for step in steps[:1]:
        _continue(step, dictionaries[step], {}, track_of, history)
    for one, other in pairwise(steps):
        a, b = dictionaries[one], dictionaries[other]
        found = rule(a, b)
        links += [{"from_step": one, "from_latent": i, "to_step": other, "to_latent": j} for i, j in found.links]
        events += _events(one, other, a, b, found)
        before = {j: track_of[one, i] for i, j in found.links}
        _continue(other, b, before, track_of, history)
    return Report(events, links, history)


def _continue(
    step: int, shown: Shown, before: dict[int, int], track_of: dict[tuple[int, int], int], history: list[Row]
) -> None:
    fresh = max(track_of.values(), default=-1) + 1
    for latent in map(int, shown.live):
        if latent not in before:
            before[latent], fresh = fresh, fresh + 1
        track_of[step, latent] = before[latent]
        history.append({"track": before[latent], "step": step, "latent": latent})


def _events(one: int, other: int, a: Shown, b: Shown, found: Relations) -> list[Row]:
    """What is neither continued nor part of a split or merge is born or dead."""

    def row(kind: str, parents: list[int], children: list[int]) -> Row:
        times = {
            "step": other,
            "from_step": None if kind == "birth" else one,
            "to_step": None if kind == "death" else other,
        }
        return {"kind": kind, **times, "parents": parents, "children": children}

    splits = [row("split", [parent], children) for parent, children in found.splits.items()]
    merges = [row("merge", parents, [child]) for child, parents in found.merges.items()]
    known = (
        [latent for event in splits + merges for latent in event["parents"]],
        [latent for event in splits + merges for latent in event["children"]],
    )
    gone = set(map(int, a.live)) - {i for i, _ in found.links} - set(known[0])
    come = set(map(int, b.live)) - {j for _, j in found.links} - set(known[1])
    births = [row("birth", [], [latent]) for latent in sorted(come)]
    deaths = [row("death", [latent], []) for latent in sorted(gone)]
    return births + deaths + splits + merges


def _assigned(a: Shown, b: Shown, score: Floats, threshold: float) -> list[tuple[int, int]]:
    rows, columns = linear_sum_assignment(score[np.ix_(a.live, b.live)], maximize=True)
    pairs = zip(a.live[rows], b.live[columns], strict=True)
    return [(int(i), int(j)) for i, j in pairs if score[i, j] >= threshold]


def _with_leftovers(a: Shown, b: Shown, score: Floats, links: list[tuple[int, int]], threshold: float) -> Relations:
    """Links, and splits and merges among what they leave over."""
    to, back = dict(links), {j: i for i, j in links}
    split = score.copy()
    for j, i in back.items():
        split[np.arange(len(split)) != i, j] = 0
    merge = score.copy()
    for i, j in to.items():
        merge[i, np.arange(merge.shape[1]) != j] = 0
    splits = _parts(a.live, b.live, split, threshold, 2 * threshold)
    return Relations(links, splits, _parts(b.live, a.live, merge.T, threshold, 2 * threshold))


def _parts(
    ones: NDArray[np.int64], others: NDArray[np.int64], score: Floats, threshold: float, mass: float
) -> dict[int, list[int]]:
    """Latents with two or more partners from ``threshold`` on, the best two of which add up to ``mass``."""
    parts = {}
    for one in ones:
        near = others[score[one, others] >= threshold]
        near = near[np.argsort(-score[one, near])][:SPLIT_PARTS]
        if len(near) >= 2 and score[one, near[:2]].sum() >= mass:
            parts[int(one)] = [int(latent) for latent in near]
    return parts


def _cosines(a: Shown, b: Shown) -> Floats:
    return np.asarray(_unit(a.decoder) @ _unit(b.decoder).T)


def _code_cosines(a: Shown, b: Shown) -> Floats:
    product = (sp.csc_array(a.codes).T @ sp.csc_array(b.codes)).toarray()
    norms = [np.sqrt(np.asarray((shown.codes * shown.codes).sum(axis=0)).ravel()) for shown in (a, b)]
    return np.asarray(product / np.maximum(np.outer(*norms), 1e-12))


def _procrustes(a: Shown, b: Shown) -> Floats:
    """The rotation that takes a's reconstructed rows nearest to b's."""
    ones, others = a.codes @ a.decoder, b.codes @ b.decoder
    u, _, v = np.linalg.svd((ones - ones.mean(axis=0)).T @ (others - others.mean(axis=0)))
    return np.asarray(u @ v)


def _unit(x: Floats) -> Floats:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
