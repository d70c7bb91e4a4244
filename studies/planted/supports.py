"""On which rows each atom of a world is active at each checkpoint, and how strongly."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from studies.planted.config import WorldConfig
from studies.planted.plan import Family, Plan

Rows = NDArray[np.int64]
SPREAD = 0.25  # standard deviation of the logarithm of a code over the rows of a feature
IN_TOPIC = 0.6  # share of a feature's rows that lie in sequences about its topic, where there is room
SHARED = 0.6  # share of a correlated feature's rows that are rows of its leader


class Supports:
    """Draws the rows of every atom once; :meth:`codes` varies them from checkpoint to checkpoint."""

    def __init__(self, config: WorldConfig, plan: Plan, rng: np.random.Generator, seed: int) -> None:
        self.config, self.plan, self.seed = config, plan, seed
        self.topical = self._topical(rng)
        self.in_topic = [self.topical[:, topic] for topic in rng.integers(0, max(1, config.topics), len(plan.families))]
        self.base = self._base(rng)
        self.sizes = [rng.lognormal(-(SPREAD**2) / 2, SPREAD, len(rows)) for rows in self.base]

    def codes(self, i: int) -> sp.csr_array:
        """Codes of the atoms at checkpoint i, before the scale: [rows, atoms]."""
        rng = np.random.default_rng([self.seed, 101, i])
        now: list[Rows] = []
        values = []
        for a, atom in enumerate(self.plan.atoms):
            kept = rng.random(len(self.base[a])) >= self.config.churn
            fresh = self._fresh(rng, atom.family, now, int((~kept).sum()))
            if (hosted := self._host_rows(atom.family, now)) is not None:
                kept &= np.isin(self.base[a], hosted)
            fresh = np.setdiff1d(fresh, self.base[a])
            size = np.concatenate([self.sizes[a][kept], rng.lognormal(-(SPREAD**2) / 2, SPREAD, len(fresh))])
            now.append(np.concatenate([self.base[a][kept], fresh]))
            jitter = np.exp(self.config.jitter * rng.standard_normal(len(size)) - self.config.jitter**2 / 2)
            values.append(size * jitter * atom.amplitude[i])
        return self._matrix(now, values)

    def _matrix(self, rows: list[Rows], values: list[NDArray[np.float64]]) -> sp.csr_array:
        columns = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        shape = (self.config.rows, len(rows))
        matrix = sp.csr_array((np.concatenate(values), (np.concatenate(rows), columns)), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    def _topical(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Whether each row lies in a sequence about each topic: [rows, topics]."""
        count = max(1, self.config.topics)
        sequences = -(-self.config.rows // self.config.sequence)
        about = np.argsort(rng.random((sequences, count)), axis=1) < 2
        return np.repeat(about, self.config.sequence, axis=0)[: self.config.rows]

    def _base(self, rng: np.random.Generator) -> list[Rows]:
        """Rows of every atom; the atoms of a family part the rows of the family."""
        families: list[Rows] = []
        for family, in_topic in zip(self.plan.families, self.in_topic, strict=True):
            families.append(self._family_rows(family, in_topic, families, rng))
        base: list[Rows] = [np.empty(0, dtype=np.int64)] * len(self.plan.atoms)
        members: dict[int, list[int]] = {}
        for a, atom in enumerate(self.plan.atoms):
            members.setdefault(atom.family, []).append(a)
        for number, atoms in members.items():
            rows = families[number]
            shares = rng.uniform(0.8, 1.2, len(atoms))
            part = rng.choice(len(atoms), len(rows), p=shares / shares.sum())
            for k, a in enumerate(atoms):
                base[a] = rows[part == k]
        return base

    def _family_rows(
        self, family: Family, in_topic: NDArray[np.bool_], drawn: list[Rows], rng: np.random.Generator
    ) -> Rows:
        if family.host is not None:
            host = drawn[family.host]
            return np.sort(rng.choice(host, min(len(host), self._count(family.density)), replace=False))
        rate = self._rate(family.density, in_topic)
        if family.leader is None:
            return np.flatnonzero(rng.random(self.config.rows) < rate)
        leader = drawn[family.leader]
        shared = rng.choice(leader, min(len(leader), round(SHARED * self._count(family.density))), replace=False)
        own = np.flatnonzero(rng.random(self.config.rows) < (1 - SHARED) * rate)
        return np.union1d(shared, own)

    def _count(self, density: float) -> int:
        return max(1, round(density * self.config.rows))

    def _rate(self, density: float, in_topic: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Probability of each row, higher where the sequence is about the feature's topic."""
        inside = in_topic.mean()
        if not self.config.topics or not 0 < inside < 1:
            return np.full(self.config.rows, density)
        high = min(0.9, density * IN_TOPIC / inside)
        return np.asarray(np.where(in_topic, high, (density - inside * high) / (1 - inside)))

    def _fresh(self, rng: np.random.Generator, family: int, now: list[Rows], count: int) -> Rows:
        """Rows on which an atom is active at this checkpoint only."""
        hosted = self._host_rows(family, now)
        if hosted is not None:
            return np.unique(rng.choice(hosted, count)) if len(hosted) else hosted
        where = self.in_topic[family]
        inside = rng.random(count) < (IN_TOPIC if self.config.topics and where.any() else 0)
        rows = rng.integers(0, self.config.rows, count)
        if inside.any():
            rows[inside] = rng.choice(np.flatnonzero(where), int(inside.sum()))
        return np.unique(rows)

    def _host_rows(self, family: int, now: list[Rows]) -> Rows | None:
        host = self.plan.families[family].host
        if host is None:
            return None
        return now[next(a for a, atom in enumerate(self.plan.atoms) if atom.family == host)]
