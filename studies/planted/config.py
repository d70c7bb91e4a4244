"""Settings of a planted world, and the presets that the study scores."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace

SHARES = (
    "births", "deaths", "gaps", "splits", "merges", "rotations", "drifts", "transients", "siblings", "replacements",
    "subsets", "buds", "absorptions", "duplicates", "antipodes", "correlated",
)  # fmt: skip


@dataclass(frozen=True)
class Shares:
    """How many features take part in what, each as a share of the features at the start."""

    births: float = 0.0
    deaths: float = 0.0
    gaps: float = 0.0
    """Features away for one or two checkpoints: dormant, never dead."""
    splits: float = 0.0
    """Parents that split into two or three children."""
    merges: float = 0.0
    """Features made by a merge of two or three that were there."""
    rotations: float = 0.0
    """Features that turn 40 to 75° between two checkpoints and keep firing as before."""
    drifts: float = 0.0
    """Features that turn 60 to 90° in all, evenly over the history."""
    transients: float = 0.0
    """Features there at one checkpoint only. No event."""
    siblings: float = 0.0
    """Births at cosine 0.5 to 0.85 of a feature that lives on, on rows of their own: births, never splits."""
    replacements: float = 0.0
    """Features that die as one near them (cosine 0.5 to 0.85), on other rows, is born: a death and a birth."""
    subsets: float = 0.0
    """Features that fire inside another's rows, from the first checkpoint to the last. No event."""
    buds: float = 0.0
    """Births inside the rows of a feature that lives on, which is then their parent."""
    absorptions: float = 0.0
    """Oracle dictionaries only: from one checkpoint on a parent is silent on its subset's rows. No event."""
    duplicates: float = 0.0
    """Oracle dictionaries only: from one checkpoint on two latents share one feature's rows. No event."""
    antipodes: float = 0.0
    """Features that point against another one, on rows of their own. No event."""
    correlated: float = 0.0
    """Features six tenths of whose rows are rows of another feature. No event."""

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")


EVENTFUL = Shares(
    births=0.10, deaths=0.10, gaps=0.06, splits=0.06, merges=0.05, rotations=0.06, drifts=0.12, transients=0.03,
    siblings=0.03, replacements=0.03, subsets=0.04,
)  # fmt: skip


@dataclass(frozen=True)
class WorldConfig:
    """One kind of world. The defaults are the level ``hard``. A typical code has size 1.

    Raises:
        ValueError: if a field is out of range, naming it.
    """

    d: int = 64
    """Width of the activations."""
    features: int = 160
    """Features alive at the first checkpoint."""
    checkpoints: int = 12
    rows: int = 20_000
    sequence: int = 20
    """Rows in a sequence; the rows of one sequence share their topics."""
    topics: int = 16
    """A sequence has two of these, and each feature belongs to one; 0 means that rows are independent."""
    uneven: bool = False
    """Steps with uneven gaps instead of every hundredth."""
    shares: Shares = field(default=EVENTFUL)
    transition: float = 0.0
    """Share of the features that die, are born, split, merge or rotate together at the middle checkpoint."""
    gradual: float = 0.0
    """Share of the births, deaths, splits and merges that take three checkpoints instead of one."""
    active: float = 10.0
    """Mean number of active features per row."""
    zipf: float = 0.9
    """Density of the feature of rank r goes as r^-zipf."""
    rarest: float = 0.003
    """No density is smaller. With the default sizes none comes near it, unless ``rare_tail``."""
    rare_tail: bool = False
    """Densities fall faster at their end, so that the last is the rarest: a fifth of the features under 1 %."""
    densest: float = 0.3
    """Largest density."""
    noise: float = 0.9
    """Root mean squared norm of the anisotropic noise of a row."""
    noise_fixed: float = 0.5
    """Share of the variance of noise and background that is the same at every checkpoint."""
    background: float = 0.8
    """Root mean squared size of each of the four dense background directions; 0 means none."""
    churn: float = 0.1
    """Share of each support that is away at a checkpoint, with as many other rows instead."""
    jitter: float = 0.3
    """Standard deviation of the logarithm of each code from checkpoint to checkpoint."""
    wander: float = 0.7
    """Degrees by which every direction wanders per checkpoint."""
    turn: float = 0.7
    """Degrees (root mean square over directions) by which the whole space turns per checkpoint."""
    growth: float = 4.0
    """Scale of the activations at the last checkpoint over the first, without the jump."""
    jump: float = 1.5
    """Sudden factor of the scale at one checkpoint."""

    def __post_init__(self) -> None:
        if self.checkpoints < 7 and (self.transition or any(getattr(self.shares, name) for name in SHARES[:10])):
            raise ValueError(f"events need at least 7 checkpoints, got {self.checkpoints}")
        if min(self.d, self.features, self.checkpoints, self.rows, self.sequence) < 1:
            raise ValueError("d, features, checkpoints, rows and sequence must be at least 1")
        for name in ("transition", "gradual", "noise_fixed", "churn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.rarest <= self.densest < 1:
            raise ValueError(f"0 < rarest <= densest < 1 wanted, got {self.rarest} and {self.densest}")


CALM = Shares(subsets=0.04)
HARD = WorldConfig()
# Fewer features and more rows than the default: under this noise trained dictionaries see nothing on 200 rows.
HARSH = WorldConfig(
    features=128, rows=40_000, noise=1.6, active=8.0, zipf=1.2, rarest=0.002, background=1.2, churn=0.2, jitter=0.4,
    turn=1.5,
)  # fmt: skip
CLEAN = WorldConfig(
    noise=0.1, background=0.0, churn=0.0, jitter=0.1, wander=0.0, turn=0.0, growth=1.0, jump=1.0, topics=0
)
NOTHING = replace(HARD, shares=CALM, churn=0.0, jitter=0.0, wander=0.0, turn=0.0, growth=1.0, jump=1.0, noise_fixed=0.0)
STILL = replace(NOTHING, noise_fixed=1.0)
DRIFT_ONLY = replace(HARD, shares=replace(CALM, drifts=0.3))
HALF = Shares(
    births=0.05, deaths=0.05, gaps=0.03, splits=0.03, merges=0.025, rotations=0.03, drifts=0.06, transients=0.015,
    siblings=0.015, replacements=0.015, subsets=0.04,
)  # fmt: skip
CONFOUNDS = replace(EVENTFUL, buds=0.05, absorptions=0.02, duplicates=0.04, antipodes=0.05, correlated=0.05)

PRESETS: dict[str, WorldConfig] = {
    "clean": CLEAN,
    "hard": HARD,
    "harsh": HARSH,
    "nothing": NOTHING,  # the same features on the same rows, all noise fresh at every checkpoint
    "still": STILL,  # literally the same rows at every checkpoint
    "quiet": replace(HARD, shares=CALM),  # churn, jitter, wander, turn and growth of the level hard, and no event
    "drift_only": DRIFT_ONLY,
    "transition": replace(HARD, shares=HALF, transition=0.4),
    "rare": replace(HARD, rare_tail=True),
    "gradual": replace(HARD, gradual=1.0),
    "confounds": replace(HARD, shares=CONFOUNDS),
}


def preset(name: str, **changes: object) -> WorldConfig:
    """The preset of this name, with some fields changed.

    Raises:
        ValueError: if there is no such preset, naming the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no preset {name!r}{hint} There are: {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)  # type: ignore[arg-type]
