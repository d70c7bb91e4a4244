"""Decides what happens in a world: which features there are, where they point, when they live.

Activations are written by *atoms*; a feature is what a set of atoms is called at a checkpoint. The two or three atoms
of a family that splits share one direction, and are one feature, before the split; after it each has its own direction
and is a feature of its own. A merge is the reverse. Every other feature is one atom.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from studies.planted.config import WorldConfig
from studies.planted.truth import Event, Feature

Floats = NDArray[np.float64]
Path = Floats  # a direction at every checkpoint: [checkpoints, d], unit rows
NEAR = (0.5, 0.85)  # cosine of a child, sibling or replacement to the feature that it is near
INSIDE = (1 / 3, 1 / 2)  # density of a bud or subset as a share of its host's
GRADUAL = (0.25, 0.65)  # how far a gradual change has come one checkpoint before its date, and at it


@dataclass
class Atom:
    """A direction that writes into the activations on its rows."""

    direction: Path
    amplitude: Floats
    """Size of its codes at every checkpoint: 1 while it lives."""
    feature: NDArray[np.int64]
    """The feature that it is, or is part of, at every checkpoint; -1 for none."""
    family: int
    """Atoms of one family part one support among them."""


@dataclass(frozen=True)
class Family:
    """A support: rows drawn at one density."""

    density: float
    host: int | None = None
    """The family whose rows these rows are part of."""
    leader: int | None = None
    """The family of which six tenths of these rows are rows."""


@dataclass
class Plan:
    """Everything about a world except its rows."""

    atoms: list[Atom] = field(default_factory=list)
    families: list[Family] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    transitions: list[int] = field(default_factory=list)
    absorbed: list[tuple[int, int, int]] = field(default_factory=list)
    """(first checkpoint, parent, child): the oracle dictionary's parent is silent on the child's rows."""
    duplicated: list[tuple[int, int]] = field(default_factory=list)
    """(first checkpoint, feature): the oracle dictionary has it twice."""


def make_plan(config: WorldConfig, rng: np.random.Generator) -> Plan:
    """The plan of one world."""
    return _Planner(config, rng).plan


class _Planner:
    def __init__(self, config: WorldConfig, rng: np.random.Generator) -> None:
        self.config, self.rng, self.plan = config, rng, Plan()
        self.middle = config.checkpoints // 2
        self.starts: list[Floats] = []
        shares, n = config.shares, config.features
        count = {name: round(share * n) for name, share in vars(shares).items()}
        moved = round(config.transition * n)
        merged = [int(k) for k in rng.choice([2, 3], count["merges"] + round(0.1 * moved), p=[0.75, 0.25])]
        inside = count["subsets"] + count["absorptions"]  # these take their density from their host
        self.densities = zipf_densities(config, n - inside - sum(merged) + len(merged))
        self.unused = list(rng.permutation(self.densities))
        self._families(count, moved, merged)
        self._births(count, moved)
        self._ends(count, moved)
        self._turns(count, moved)
        self._confounds(count)
        while self.unused:
            self._steady(self._density())
        if moved:
            self.plan.transitions.append(self.middle)

    # --- what happens -----------------------------------------------------------------------------------------

    def _families(self, count: dict[str, int], moved: int, merged: list[int]) -> None:
        for at, plan in self._dates(count["splits"], round(0.15 * moved), 3, 3, "split"):
            self._family(int(self.rng.choice([2, 3], p=[0.75, 0.25])), at, plan, merge=False)
        dates = self._dates(count["merges"], round(0.1 * moved), 3, 3, "merge")
        for (at, plan), parts in zip(dates, merged, strict=True):
            self._family(parts, at, plan, merge=True)

    def _births(self, count: dict[str, int], moved: int) -> None:
        for at, plan in self._dates(count["births"], round(0.3 * moved), 2, 3, "birth"):
            self._born(at, plan, self._start())
        for at, _ in self._dates(count["siblings"], 0, 2, 3, "sibling"):
            host = self._steady(self._density(), "sibling host")
            self._born(at, "sibling", self._near(self.plan.atoms[host].direction))
        for at, _ in self._dates(count["buds"], 0, 2, 3, "bud"):
            host = self._steady(self._density(roomy=True), "bud host")
            path = self._near(self.plan.atoms[host].direction)
            self._born(at, "bud", path, host=host)
        for at, _ in self._dates(count["transients"], 0, 1, 2, "transient"):
            amplitude = np.zeros(self.config.checkpoints)
            amplitude[at] = 1
            self._single(self._start(), amplitude, Family(self._drawn()), "transient")

    def _ends(self, count: dict[str, int], moved: int) -> None:
        for at, plan in self._dates(count["deaths"], round(0.3 * moved), 3, 3, "death"):
            self._dying(at, plan)
        for at, _ in self._dates(count["replacements"], 0, 3, 3, "replacement"):
            atom = self._dying(at, "replacement", abrupt=True)
            self._born(at, "replacement", self._near(self.plan.atoms[atom].direction), abrupt=True)
        for at, _ in self._dates(count["gaps"], 0, 3, 5, "gap"):
            until = at + int(self.rng.integers(1, 3))
            amplitude = np.ones(self.config.checkpoints)
            amplitude[at:until] = 0
            atom = self._single(self._start(), amplitude, Family(self._density()), "gap")
            self._event("dormancy", at, self._ids(atom), self._ids(atom), "gap", until)

    def _turns(self, count: dict[str, int], moved: int) -> None:
        for at, plan in self._dates(count["rotations"], round(0.15 * moved), 2, 2, "rotation"):
            angle = np.radians(self.rng.uniform(40, 75)) * (self._times() >= at)
            atom = self._steady(self._density(), "rotation", self._bent(self._start(), angle))
            self._event("rotation", at, self._ids(atom), self._ids(atom), plan)
        for _ in range(count["drifts"]):
            angle = np.radians(self.rng.uniform(60, 90)) * self._times() / (self.config.checkpoints - 1)
            atom = self._steady(self._density(), "drift", self._bent(self._start(), angle))
            self._event("drift", self.config.checkpoints - 1, self._ids(atom), self._ids(atom), "drift")

    def _confounds(self, count: dict[str, int]) -> None:
        for _ in range(count["subsets"]):
            self._subset()
        for at, _ in self._dates(count["absorptions"], 0, 3, 3, "absorption"):
            host, inside = self._subset()
            self.plan.absorbed.append((at, *self._ids(host), *self._ids(inside)))
        for at, _ in self._dates(count["duplicates"], 0, 3, 3, "duplicate"):
            atom = self._steady(self._density(roomy=True), "duplicate")
            self.plan.duplicated.append((at, *self._ids(atom)))
        for _ in range(count["antipodes"]):
            other = self._steady(self._density(), "antipode")
            self._steady(self._density(), "antipode", -self.plan.atoms[other].direction)
        for _ in range(count["correlated"]):
            leader = self.plan.atoms[self._steady(self._density(roomy=True), "correlated")].family
            density = min(self._density(), self.plan.families[leader].density)
            self._single(self._start(), self._ones(), Family(density, leader=leader), "correlated")

    # --- kinds of features ------------------------------------------------------------------------------------

    def _steady(self, density: float, plan: str = "steady", path: Path | None = None) -> int:
        path = self._start() if path is None else path
        return self._single(path, self._ones(), Family(density), plan)

    def _born(self, at: int, plan: str, path: Path, *, host: int | None = None, abrupt: bool = False) -> int:
        family = Family(self._drawn())
        if host is not None:
            inside = self.plan.atoms[host].family
            family = Family(self.plan.families[inside].density * self.rng.uniform(*INSIDE), host=inside)
        atom = self._single(path, self._ramp(at, abrupt), family, plan)
        self._event("birth", at, () if host is None else self._ids(host), self._ids(atom), plan)
        return atom

    def _dying(self, at: int, plan: str, *, abrupt: bool = False) -> int:
        atom = self._single(self._start(), 1 - self._ramp(at, abrupt), Family(self._density()), plan)
        self._event("death", at, self._ids(atom), (), plan)
        return atom

    def _subset(self) -> tuple[int, int]:
        host = self._steady(self._density(roomy=True), "subset host")
        inside = self.plan.atoms[host].family
        density = self.plan.families[inside].density * self.rng.uniform(*INSIDE)
        return host, self._single(self._start(), self._ones(), Family(density, host=inside), "subset")

    def _family(self, parts: int, at: int, plan: str, *, merge: bool) -> None:
        density, whole = self._density(roomy=True), self._start()
        self.plan.families.append(Family(density))
        family, apart = len(self.plan.families) - 1, self._ramp(at)
        after = self._times() >= at
        if merge:
            apart, after = 1 - apart, ~after
        one = self._feature("merged" if merge else "split parent", ~after, density)
        many: list[int] = []
        for _ in range(parts):
            many.append(self._feature("merge parent" if merge else "split child", after, density / parts))
            angle = np.arccos(self.rng.uniform(*NEAR)) * apart
            members = np.where(after, many[-1], one)
            self.plan.atoms.append(Atom(self._bent(whole, angle), self._ones(), members, family))
        sides: tuple[tuple[int, ...], ...] = (tuple(many), (one,)) if merge else ((one,), tuple(many))
        self._event("merge" if merge else "split", at, sides[0], sides[1], plan)

    def _single(self, path: Path, amplitude: Floats, family: Family, plan: str) -> int:
        self.plan.families.append(family)
        alive = amplitude >= 0.5
        members = np.where(alive, self._feature(plan, alive, family.density), -1)
        self.plan.atoms.append(Atom(path, amplitude, members, len(self.plan.families) - 1))
        return len(self.plan.atoms) - 1

    # --- records ----------------------------------------------------------------------------------------------

    def _feature(self, plan: str, alive: NDArray[np.bool_], density: float) -> int:
        feature = Feature(len(self.plan.features), plan, tuple(bool(x) for x in alive), float(density))
        self.plan.features.append(feature)
        return feature.id

    def _event(
        self,
        kind: str,
        at: int,
        parents: tuple[int, ...],
        children: tuple[int, ...],
        plan: str,
        until: int | None = None,
    ) -> None:
        self.plan.events.append(Event(kind, at, parents, children, plan, until))

    def _ids(self, atom: int) -> tuple[int]:
        return (int(self.plan.atoms[atom].feature.max()),)

    # --- times, sizes, directions -----------------------------------------------------------------------------

    def _dates(self, spread: int, together: int, first: int, last: int, plan: str) -> list[tuple[int, str]]:
        """Dates from ``first`` to ``last`` before the end, evenly used; those of the transition are in the middle."""
        allowed = self.rng.permutation(np.arange(first, max(first, self.config.checkpoints - last) + 1))
        dates = [(int(at), plan) for at in np.resize(allowed, spread)] if spread else []
        return dates + [(self.middle, "transition")] * together

    def _times(self) -> NDArray[np.int64]:
        return np.arange(self.config.checkpoints)

    def _ones(self) -> Floats:
        return np.ones(self.config.checkpoints)

    def _ramp(self, at: int, abrupt: bool = False) -> Floats:
        ramp = (self._times() >= at).astype(float)
        if not abrupt and self.config.gradual and self.rng.random() < self.config.gradual:
            ramp[at - 1 : at + 1] = GRADUAL
        return ramp

    def _density(self, *, roomy: bool = False) -> float:
        """One of the densities still unused; ``roomy``: one whose third is not rarer than the rarest of the world."""
        enough = 3 * self.densities.min() if roomy else 0
        where = next((i for i, density in enumerate(self.unused) if density >= enough), None)
        if where is None:
            if not self.unused:
                raise ValueError(f"the shares ask for more than {self.config.features} features; lower some of them")
            where = int(np.argmax(self.unused))
        return float(self.unused.pop(where))

    def _drawn(self) -> float:
        return float(self.rng.choice(self.densities))

    def _start(self) -> Path:
        """A new direction, the least crowded of 30 random ones, and the way that it wanders."""
        tries = unit(self.rng.standard_normal((30, self.config.d)))
        if self.starts:
            tries = tries[np.abs(tries @ np.stack(self.starts).T).max(axis=1).argsort()]
        self.starts.append(tries[0])
        return self._wandering(tries[0])

    def _wandering(self, start: Floats) -> Path:
        size = np.radians(self.config.wander) / np.sqrt(self.config.d)
        steps = self.rng.standard_normal((self.config.checkpoints, self.config.d)) * size
        steps[0] = 0
        return unit(start + steps.cumsum(axis=0))

    def _near(self, path: Path) -> Path:
        return self._bent(path, np.full(self.config.checkpoints, np.arccos(self.rng.uniform(*NEAR))))

    def _bent(self, path: Path, angle: Floats) -> Path:
        """The path turned by ``angle`` (radians, one per checkpoint) towards a random direction across it."""
        away = self._wandering(unit(self.rng.standard_normal(self.config.d)))
        across = unit(away - (away * path).sum(axis=1, keepdims=True) * path)
        return np.cos(angle)[:, None] * path + np.sin(angle)[:, None] * across


def unit(x: Floats) -> Floats:
    """The same vectors with norm 1."""
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def zipf_densities(config: WorldConfig, count: int) -> Floats:
    """``count`` densities that fall like rank^-zipf between the rarest and the densest and add up to ``active``.

    With their sum given, Zipf's law leaves only one size free. Plain: the range clips it. ``rare_tail``: what falls
    like rank^-zipf is the part above the rarest, so that the range is used down to its end.
    """
    falls = np.arange(1, count + 1) ** -config.zipf
    low, high = 1e-6, 1e6
    for _ in range(200):
        middle = np.sqrt(low * high)
        enough = _densities(config, np.asarray(middle * falls)).sum() >= config.active
        low, high = (low, middle) if enough else (middle, high)
    return _densities(config, np.asarray(low * falls))


def _densities(config: WorldConfig, falls: Floats) -> Floats:
    if config.rare_tail:
        falls = falls - falls[-1] + config.rarest
    return np.clip(falls, config.rarest, config.densest)
