"""Two runs side by side: which features they share, when each got them, and whether they reorganise together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csr_array

from dynamics.answers import counted
from dynamics.charts.rows import Row, Source
from dynamics.files.layout import RunDirectory
from dynamics.files.saes import load_sae, sae_records
from dynamics.files.snapshots import load_activations, snapshots
from dynamics.run import Run
from dynamics.tracking.linking import matching

LIVE = """
select latent, track from feature_history where site = $site and step = $step
order by density * mean_activation desc, track
"""
ONSETS = "select track, step, censored from onsets where site = $site"
WINDOWS = "select from_step, to_step, peak_step, p_value from transitions where site = $site order by p_value"
ALIKE = 0.3
"""Least share of rows, of those where either fires, on which two features that are one both fire."""


@dataclass(frozen=True)
class Compared:
    """One site of two runs at their last common checkpoint."""

    site: str
    step: int
    features: tuple[int, int]
    """Live features of either run."""
    shared: list[Row]
    """Matched features, the most alike first: track, latent and onset in either run, whether it was there at
    the first checkpoint (``early``), and their overlap in [0, 1]."""
    chance: list[float]
    """Overlaps of what the same rule matches where the rows of one run are shifted against the other's."""
    alone: tuple[list[Row], list[Row]]
    """Features of either run that the other has nothing like, those that fire most first: track and latent, and the
    largest ``overlap`` in [0, 1] with any feature of the other run."""
    windows: tuple[list[Row], list[Row]]
    """Transitions of either run, the surest first."""


def compare(first: Run, second: Run) -> list[Compared]:
    """Features of two runs matched by the probe rows they fire on, at each site that both have.

    One-to-one, of the largest summed overlap (Jaccard index of the rows where they fire); features that share fewer
    than 30 % of their rows are not matched. Directions are not compared: two networks have no basis in common.

    Raises:
        ValueError: if the runs have no site in common, looked at no common step, were shown different probes, or one
            has not been tracked.
    """
    sites = [site for site in first.sites() if site in second.sites()]
    if not sites:
        have = " | ".join(", ".join(run.sites()) or "none" for run in (first, second))
        raise ValueError(f"the runs have no site in common: {have}")
    return [_compared(first, second, site) for site in sites]


def _compared(first: Run, second: Run, site: str) -> Compared:
    steps = [{record.step for record in sae_records(run.directory, site, arm="chain")} for run in (first, second)]
    common = steps[0] & steps[1]
    if not common:
        raise ValueError(f"{site}: the runs have no analysed step in common, so their features cannot be matched")
    step = max(common)
    sides = [_fires(run, site, step) for run in (first, second)]
    if sides[0].probe != sides[1].probe:
        raise ValueError(
            f"{site}: the runs were shown different probes, so where their features fire cannot be compared"
        )
    overlap = _overlap(sides[0].fires, sides[1].fires)
    pairs = _matched(overlap)
    onsets = [{row["track"]: row for row in Source(run).rows(ONSETS, site=site)} for run in (first, second)]
    shared = [_pair(sides, onsets, *pair) for pair in sorted(pairs, key=lambda pair: -pair[2])]
    # A shift by half of the probe leaves each feature's own rows as they are and breaks what the two have in common.
    shifted = sp.csr_array(sp.vstack([sides[1].fires[_half(sides[1]) :], sides[1].fires[: _half(sides[1])]]))
    chance = [overlap for _, _, overlap in _matched(_overlap(sides[0].fires, shifted))]
    windows = [Source(run).rows(WINDOWS, site=site) for run in (first, second)]
    alone = (_alone(sides[0], overlap), _alone(sides[1], csr_array(overlap.T)))
    features = (len(sides[0].tracks), len(sides[1].tracks))
    return Compared(site, step, features, shared, chance, alone, (windows[0], windows[1]))


@dataclass(frozen=True)
class _Side:
    fires: csr_array
    """[rows, features]: 1 where a feature fires."""
    tracks: list[int]
    latents: list[int]
    probe: str


def _half(side: _Side) -> int:
    return int(side.fires.shape[0]) // 2


def _fires(run: Run, site: str, step: int) -> _Side:
    directory: RunDirectory = run.directory
    shot = next(record for record in snapshots(directory, site) if record.step == step)
    record = next(record for record in sae_records(directory, site, arm="chain") if record.step == step)
    live = Source(run).rows(LIVE, site=site, step=step)
    if not live:
        raise ValueError(
            f"{site}: {run.path} has no tracked feature at step {step:,}; `dynamics analyze` does the rest"
        )
    codes = load_sae(directory, record).encode_sparse(load_activations(directory, shot))
    fires = (codes[:, [row["latent"] for row in live]] > 0).astype(np.float64)
    return _Side(fires, [row["track"] for row in live], [row["latent"] for row in live], shot.probe)


def _overlap(a: csr_array, b: csr_array) -> csr_array:
    """Jaccard indices of the features of two runs, [features, features]."""
    both = sp.coo_array(a.T @ b)
    sizes = [np.asarray(side.sum(axis=0)).ravel() for side in (a, b)]
    i, j = both.coords
    jaccard = both.data / (sizes[0][i] + sizes[1][j] - both.data)
    return csr_array((jaccard, (i, j)), shape=both.shape)


def _matched(overlap: csr_array) -> list[tuple[int, int, float]]:
    """The one-to-one pairs of largest summed overlap, none below ``ALIKE``; every feature may stay alone."""
    found = sp.coo_array(overlap)
    alike = found.data >= ALIKE
    i, j = (side[alike].astype(np.int64) for side in found.coords)
    data = found.data[alike]
    chosen = matching(i, j, data, overlap.shape, 0.0)
    return [(int(i[n]), int(j[n]), float(data[n])) for n in chosen]


def _alone(side: _Side, overlap: csr_array) -> list[Row]:
    """The features of a run that are like none of the other's; ``overlap`` has a row for each of them."""
    best = overlap.max(axis=1).toarray().ravel() if overlap.shape[1] else np.zeros(overlap.shape[0])
    return [
        {"track": side.tracks[n], "latent": side.latents[n], "overlap": float(best[n])}
        for n in range(len(side.tracks)) if best[n] < ALIKE
    ]  # fmt: skip


def _pair(sides: list[_Side], onsets: list[dict[int, Row]], i: int, j: int, overlap: float) -> Row:
    tracks = (sides[0].tracks[i], sides[1].tracks[j])
    known = [onsets[k].get(track, {"step": None, "censored": None}) for k, track in enumerate(tracks)]
    return {
        "first": tracks[0], "second": tracks[1], "latents": [sides[0].latents[i], sides[1].latents[j]],
        "overlap": overlap, "onsets": [row["step"] for row in known],
        "early": [row["censored"] == "left" for row in known],
    }  # fmt: skip


def comparison_text(found: list[Compared]) -> str:
    """What two runs have in common, in words, a paragraph a site."""
    return "\n\n".join("\n".join(_told(site)) for site in found)


def _told(c: Compared) -> list[str]:
    a, b = c.features
    lines = [
        f"{c.site}, step {c.step:,}: of {a:,} and {b:,} features {len(c.shared):,} fire on the same rows "
        f"(at least {ALIKE:.0%} of those where either does); by chance {len(c.chance):,} would."
    ]
    first, second = (len(side) for side in c.alone)
    lines.append(
        f"  {counted(first, 'feature')} of the first run and {second:,} of the second are like none of the other's."
    )
    return [*lines, *_dates(c.shared), *_windows(c)]


def _dates(shared: list[Row]) -> list[str]:
    known = [row for row in shared if None not in row["onsets"]]
    later = [row["onsets"] for row in known if not all(row["early"])]
    if not known:
        return []
    order = [sum(x < y for x, y in later), sum(x == y for x, y in later), sum(x > y for x, y in later)]
    told = (
        f"  {counted(len(known), 'shared feature')} with an onset in both runs: {len(known) - len(later):,} there at "
        f"the first checkpoint of both; {order[0]:,} earlier in the first run, {order[2]:,} in the second, "
        f"{order[1]:,} at the same step."
    )
    # Where a feature was there at the first checkpoint, how long before is not known, and so no ratio either.
    both = [(x, y) for x, y in (row["onsets"] for row in known if not any(row["early"])) if x and y]
    if not both:
        return [told]
    if len(both) == 1:
        [(x, y)] = both
        when = f"both at step {x:,}" if x == y else f"at step {x:,} and at step {y:,}"
        return [told, f"  One came after the first checkpoint in both: {when}."]
    factor = np.exp(np.median([abs(np.log(x / y)) for x, y in both]))
    apart = "no step apart in the median" if factor == 1 else f"a factor of {factor:.3g} apart in the median"
    return [told, f"  {len(both):,} came after the first checkpoint in both, {apart}."]


def _windows(c: Compared) -> list[str]:
    one, two = c.windows
    if not one and not two:
        return ["  Neither run has a transition here."]
    both = [(x, y) for x in one for y in two if x["from_step"] <= y["to_step"] and y["from_step"] <= x["to_step"]]
    told = [
        f"  Both reorganise: steps {x['from_step']:,} to {x['to_step']:,} and {y['from_step']:,} to {y['to_step']:,}."
        for x, y in both
    ]
    alone = [("first", x) for x in one if all(x is not p for p, _ in both)]
    alone += [("second", y) for y in two if all(y is not p for _, p in both)]
    return told + [
        f"  Only the {run} run reorganises in steps {w['from_step']:,} to {w['to_step']:,}." for run, w in alone
    ]
