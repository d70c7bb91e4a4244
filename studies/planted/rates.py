"""What many analysed worlds say about the error control: rates with their standard errors, and p-values under the null.

p-values. In a world where nothing happens, what is tested on the chain and what is tested on the null arm should be
exchangeable, so p is the share of the null arm's units that score at least as high. Most units score 0 in both and p
is a count, so p is not uniform as it stands. Ties are therefore parted by chance: p = (above + u (1 + equal)) / (1 +
null) with u uniform in (0, 1) is exactly uniform for a single unit, if the two are exchangeable.
Units of one world depend on each other, and all are held against the same null, so a Kolmogorov-Smirnov test of all
units pooled would find too much: of those only the distance to uniformity is given. Worlds are independent. So the test
is made of one p-value for each world and kind: whether the best unit of the chain is as far up among the null's as the
best of n among n + m exchangeable units would be. The number K of null units above it has P(K >= k) = product over
i < k of (m - i) / (n + m - i). That is the end of the distribution that decides what is published.
Their median says which way a deviation goes: under 0.5 the chain scores higher than the null, over it lower. Of
rotations and drifts the tracker lists those of the chain that one in twenty of the null's exceed, so the distance of
all units cannot be read for them.

False discoveries. The false-discovery proportion of a world is false over published, 0 where nothing was published; its
mean over worlds is held against the level that it was published at, with 2 standard errors of room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from studies.planted.truth import KINDS

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Levels that events are published at."""
JUDGED = (0.05, 0.1, 0.2)
"""Those that a verdict is given for."""
PUBLISHED = 0.1
"""The level that events are published at where nothing else is asked for."""
TESTED = tuple(kind for kind in KINDS if kind != "dormancy")
"""Kinds that have a q-value."""
CENSORED = ("rotation", "drift")
"""Kinds of which the tracker does not list every unit that scores."""
Record = dict[str, Any]
Floats = NDArray[np.float64]


def report(name: str, worlds: Sequence[Record]) -> str:
    """Everything about one preset, as text."""
    parts = [f"## {name}: {len(worlds)} worlds", calm(worlds), transitions(worlds), discoveries(worlds)]
    if not any(sum(world["true"].values()) for world in worlds):
        parts.append(null_p_values(worlds))
    return "\n\n".join(part for part in parts if part)


def calm(worlds: Sequence[Record]) -> str:
    """Published events of the kinds of which nothing happens in any of these worlds."""
    quiet = [kind for kind in TESTED if not any(world["true"][kind] for world in worlds)]
    if not quiet:
        return ""
    found = np.array([[world["counts"][str(PUBLISHED)][kind]["false"] for kind in quiet] for world in worlds])
    each = ", ".join(f"{kind} {n}" for kind, n in zip(quiet, found.sum(axis=0), strict=True))
    total = found.sum(axis=1)
    return (
        f"published at q ≤ {PUBLISHED} of what never happens ({each}): none in {np.sum(total == 0)} of {len(worlds)} "
        f"worlds, at most {total.max()} in one"
    )


def transitions(worlds: Sequence[Record]) -> str:
    """Transitions found, invented and missed."""
    found = [world["transitions"] for world in worlds]
    false = sum(counts["false"] > 0 for counts in found)
    true = sum(counts["right"] + counts["missing"] for counts in found)
    hits = f"{sum(counts['right'] for counts in found)} of {true} found, " if true else ""
    return f"transitions: {hits}false ones in {false} of {len(worlds)} worlds"


def discoveries(worlds: Sequence[Record]) -> str:
    """Realised false-discovery proportion and recall at each judged level, as a Markdown table."""
    levels = [str(level) for level in JUDGED]
    heads = [f"FDP at q ≤ {level} | recall" for level in levels]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|---|" * len(levels)]
    for kind in (*TESTED, "all"):
        cells = [f"{verdict(worlds, kind, float(level))} | {_number(recall(worlds, kind, level))}" for level in levels]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(worlds: Sequence[Record], kind: str, level: float) -> str:
    """Mean ± standard error of the false-discovery proportion, and whether it keeps the level within two of them."""
    mean, error = false_share(worlds, kind, str(level))
    return f"{mean:.3f} ± {error:.3f} {'kept' if mean <= level + 2 * error else 'BROKEN'}"


def false_share(worlds: Sequence[Record], kind: str, level: str) -> tuple[float, float]:
    """Mean and standard error of the false-discovery proportion over worlds; ``kind`` may be ``all``."""
    right, false, _ = _counts(worlds, kind, level).T
    share = false / np.maximum(1, right + false)
    return float(share.mean()), float(share.std(ddof=1) / np.sqrt(len(share))) if len(share) > 1 else 0.0


def recall(worlds: Sequence[Record], kind: str, level: str) -> float:
    """Share of the true events of all worlds that are published; not a number where there are none."""
    right, _, missing = _counts(worlds, kind, level).sum(axis=0)
    return float(right / (right + missing)) if right + missing else float("nan")


def _counts(worlds: Sequence[Record], kind: str, level: str) -> NDArray[np.int64]:
    """Right, false and missing of every world: [worlds, 3]"""
    kinds = TESTED if kind == "all" else (kind,)
    names = ("right", "false", "missing")
    return np.array([[sum(world["counts"][level][k][name] for k in kinds) for name in names] for world in worlds])


def null_p_values(worlds: Sequence[Record]) -> str:
    """Whether the p-values of worlds in which nothing happens are uniform, as a Markdown table."""
    rng = np.random.default_rng(0)
    lines = [
        "| null p-values | worlds | Kolmogorov-Smirnov of the best of each | their median | distance of all units |"
    ]
    lines += ["|---|---|---|---|---|"]
    every: list[Floats] = []
    for kind in TESTED:
        units = [unit_p_values(world["units"][kind], rng) for world in worlds if _testable(world, kind)]
        if units:
            best = np.array([best_p_value(world["units"][kind], rng) for world in worlds if _testable(world, kind)])
            every.append(best)
            distance = "" if kind in CENSORED else f"{kstest(np.concatenate(units), 'uniform').statistic:.3f}"
            lines.append(f"| {kind} | {len(units)} | {_uniform(best)} | {distance} |")
    if every:
        pooled = np.concatenate(every)
        lines.append(f"| all kinds | {len(worlds)} | {_uniform(pooled)} | |")
    return "\n".join(lines)


def _uniform(p: Floats) -> str:
    return f"p = {kstest(p, 'uniform').pvalue:.3f} | {np.median(p):.2f}"


def _testable(world: Record, kind: str) -> bool:
    units = world["units"].get(kind)
    return bool(units and units["tests"] and units["null_candidates"])


def unit_p_values(units: Record, rng: np.random.Generator) -> Floats:
    """The p-value of every unit that was tested, ties parted by chance."""
    chain, null = _scores(units)
    ordered = np.sort(null)
    above = len(null) - np.searchsorted(ordered, chain, side="right")
    equal = len(null) - above - np.searchsorted(ordered, chain, side="left")
    return np.asarray((above + rng.random(len(chain)) * (1 + equal)) / (1 + len(null)))


def _scores(units: Record) -> tuple[Floats, Floats]:
    """Of the chain's and of the null arm's units."""
    return _with_zeros(units["chain"], units["tests"]), _with_zeros(units["null"], units["null_candidates"])


def _with_zeros(scores: Sequence[float], size: int) -> Floats:
    """As many scores as there are units: those that are not listed are 0."""
    return np.concatenate([np.asarray(scores, dtype=float), np.zeros(max(0, size - len(scores)))])


def best_p_value(units: Record, rng: np.random.Generator) -> float:
    """Chance that the chain's best unit is as far up among the null's as it is, ties parted by chance."""
    chain, null = _scores(units)
    best = chain.max()
    highest = rng.beta(np.sum(chain == best), 1)  # of as many uniform tie-breakers
    k = int(np.sum(null > best) + rng.binomial(np.sum(null == best), 1 - highest))
    i = np.arange(k + 1)
    beyond = np.cumprod((len(null) - i) / (len(chain) + len(null) - i))  # P(K >= 1), ..., P(K >= k + 1)
    at_least = 1.0 if k == 0 else float(beyond[k - 1])
    return float(1 - at_least + rng.random() * (at_least - beyond[k]))


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"
