"""Tiny hand-made histories, one phenomenon each, with the events that a tracker should publish.

Sparse codes on nearly orthogonal unit directions and a little fresh noise; the dictionaries are the truth itself
(latent n is feature n, so indices can be read). Seven checkpoints, steps 0 to 600; 2,000 rows in 100 sequences;
22 bystanders and the features of the case, which have the lowest indices. Fresh noise at every checkpoint but where
the table says otherwise; the null series are the same features as they are at one
checkpoint, with fresh noise alone.

| case | what happens | published |
|---|---|---|
| ``still`` | nothing, not even fresh noise: seven copies of one checkpoint | – |
| ``noise`` | fresh noise only | – |
| ``birth`` | feature 0 begins at step 300 | birth 300 |
| ``late_birth`` | the same, but the dictionary sees it from step 400 on | birth 300 |
| ``dense_birth`` | feature 0 begins at step 300 and fires on a third of the rows | birth 300 |
| ``growth`` | feature 0 grows over steps 200, 300 and 400, and the dictionary sees it from 400 on | birth 300 |
| ``seedling`` | it grows over steps 200 and 300, and the dictionary sees it from 200 on, small as it is | birth 300 |
| ``death`` | feature 0 is gone from step 400 on | death 400 |
| ``gap`` | feature 0 is away at steps 300 and 400 | dormancy 300 |
| ``crowded_gap`` | the same, on rows where other features are too, for which feature 0 left no room | dormancy 300 |
| ``split`` | two children part the rows of feature 0 at step 300, each at cosine 0.7 to it | split 300 |
| ``merge`` | features 0 and 1 become one at step 300 that fires where either did | merge 300 |
| ``bud`` | from step 300 on feature 1 begins on half of the rows of feature 0, which goes on | birth 300 |
| ``rotation`` | feature 0 turns by 60° at step 300 | rotation 300 |
| ``slow_sae`` | the same, and at step 300 its latent fires on a quarter of its rows | rotation 300 |
| ``drift`` | feature 0 turns by 80° in six equal steps | drift 600 |
| ``space_turn`` | the whole space turns by 10° from each checkpoint to the next | – |
| ``rescaled`` | from step 300 on everything is written five times as large | – |
| ``duplicate`` | at step 300 the latent of feature 0 becomes two that fire together and share its direction | – |
| ``torn`` | at step 300 it becomes two that part its rows and share its direction: the model keeps one feature | – |
| ``transient`` | feature 0 lives from step 200 to step 400 | birth 200, death 500 |
| ``flicker`` | a latent fires at step 300 only, on rows where the model carries nothing for it | – |
| ``one_checkpoint`` | a chain of one checkpoint, no null series | – |
| ``two_checkpoints`` | a chain of two | – |
| ``no_live_latents`` | a chain whose dictionaries never fire | – |
| ``empty_in_the_middle`` | nothing, but the dictionary of step 300 never fires | – |

A published event is one of the chain without a reason against it, its q at most 0.1; a dormancy has no q. Dates are
the truth's; a tracker may be one checkpoint off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa
import scipy.linalg as la
import scipy.sparse as sp
from jaxtyping import Float

from dynamics.tracking import Checkpoint, History, Series, Tracking, live_checkpoint, track
from dynamics.tracking.carrying import Carrying
from dynamics.tracking.following import Followed, follow
from dynamics.tracking.tracker import link_threshold

D_IN, ROWS, SEQUENCES, CHECKPOINTS = 20, 2000, 100, 7
BYSTANDERS, SPARE = 22, 6
"""Features to which nothing happens; latents that never fire."""
NOISE, JITTER, DROPPED = 0.15, 0.1, 0.02
"""Deviation of an activation beside codes of 1 to 2; relative deviation of a code; share of codes that are missed."""
NULLS, COPIES = 2, 6
"""Null series, each as long as the chain and with all features six times over, side by side in a space six times as
wide. So many because features this clean leave the null no score above nothing and so no tail to fit: p is counted,
and one event in N tests reaches q ≤ 0.1 only beside 10 N null candidates."""
AT = 3
"""Position of the checkpoint, step 300, at which most things happen."""


@dataclass(frozen=True)
class Case:
    """A history and what should be published about it."""

    name: str
    history: History
    expected: tuple[tuple[str, int], ...]
    """(kind, step) of each event, sorted."""


@dataclass(frozen=True)
class World:
    """What the model writes and what its dictionaries see, feature by feature; ``features`` is also latents."""

    codes: Float[np.ndarray, "rows features"]
    amplitude: Float[np.ndarray, "checkpoints features"]
    """What the codes are multiplied with; 0 where the model does not carry a feature."""
    directions: Float[np.ndarray, "checkpoints features d_in"]
    seen: Float[np.ndarray, "checkpoints features"]
    """Share of the feature's rows on which its latent fires; 0 where the dictionary has not got it."""
    space: Float[np.ndarray, "checkpoints d_in d_in"]
    scale: Float[np.ndarray, " checkpoints"]
    imagined: Float[np.ndarray, "checkpoints features"]
    """Amplitude of codes that the dictionary writes though the model does not."""

    def frozen(self, at: int) -> World:
        """Every checkpoint like the one at ``at``."""
        same = [at] * len(self.scale)
        parts = {n: getattr(self, n)[same] for n in ("amplitude", "directions", "seen", "space", "scale", "imagined")}
        return replace(self, **parts)

    def side_by_side(self, copies: int) -> World:
        """The same several times over, each copy on rows and in dimensions of its own."""
        rng = np.random.default_rng(19)
        orders = [rng.permutation(len(self.codes)) for _ in range(copies)]
        wide = {n: np.tile(getattr(self, n), (1, copies)) for n in ("amplitude", "seen", "imagined")}
        blocks = {n: _blocks(getattr(self, n), copies) for n in ("directions", "space")}
        return replace(self, codes=np.hstack([self.codes[order] for order in orders]), **wide, **blocks)


def _blocks(
    matrices: Float[np.ndarray, "checkpoints height width"], copies: int
) -> Float[np.ndarray, "checkpoints tall wide"]:
    return np.stack([np.kron(np.eye(copies), m) for m in matrices])


def world(own: int, checkpoints: int = CHECKPOINTS) -> World:
    """``own`` features of a case and the bystanders, all of them there from the first checkpoint to the last."""
    rng = np.random.default_rng(7)
    n = own + BYSTANDERS
    density = np.r_[np.full(own, 0.06), np.linspace(0.03, 0.08, BYSTANDERS)]
    codes = rng.uniform(1, 2, (ROWS, n)) * (rng.random((ROWS, n)) < density)
    ones = np.ones((checkpoints, n))
    return World(
        codes=codes,
        amplitude=ones.copy(),
        directions=np.repeat(spread_directions(n)[None], checkpoints, axis=0),
        seen=ones.copy(),
        space=np.repeat(np.eye(D_IN)[None], checkpoints, axis=0),
        scale=np.ones(checkpoints),
        imagined=np.zeros((checkpoints, n)),
    )


@cache
def spread_directions(n: int) -> Float[np.ndarray, "n d_in"]:
    """Unit directions that keep as far apart as they easily can."""
    w = np.random.default_rng(3).standard_normal((n, D_IN))
    for _ in range(300):
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        cosine = w @ w.T
        np.fill_diagonal(cosine, 0)
        w -= 0.5 * cosine**3 @ w + 0.05 * cosine @ w
    return np.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))


def checkpoint(w: World, at: int, step: int, seed: int) -> Checkpoint:
    """One checkpoint of a world, in scaled units; all that is fresh comes from ``seed``."""
    rng = np.random.default_rng(seed)
    d_in = w.space.shape[-1]
    x = (w.codes * w.amplitude[at]) @ w.directions[at] + NOISE * rng.standard_normal((ROWS, d_in))
    x = w.scale[at] * x @ w.space[at]
    x -= x.mean(axis=0)
    scale = float(np.sqrt(d_in / np.square(x).sum(axis=1).mean()))
    written = w.scale[at] * scale * (w.amplitude[at] + w.imagined[at]) * (w.seen[at] > 0)
    codes = _jittered(w.codes * written, w.seen[at], rng)
    decoder = np.vstack([w.directions[at] @ w.space[at], np.eye(SPARE, d_in)]).astype(np.float32)
    return live_checkpoint(step, (x * scale).astype(np.float32), codes, decoder, scale)


def _jittered(
    codes: Float[np.ndarray, "rows features"], seen: Float[np.ndarray, " features"], rng: np.random.Generator
) -> sp.csr_array:
    """What a dictionary writes for these codes: each a little off, some missed, and latents that never fire."""
    row, column = np.nonzero(codes)
    off = (1 + JITTER * rng.standard_normal(len(row))).clip(0.1)
    z = np.where(rng.random(len(row)) > (1 - DROPPED) * seen[column], 0, codes[row, column] * off)
    shape = (codes.shape[0], codes.shape[1] + SPARE)
    kept = z > 0
    return sp.csr_array((z[kept].astype(np.float32), (row[kept], column[kept])), shape=shape)


def series(w: World, seeds: Sequence[int]) -> Series:
    """The checkpoints of a world, 100 steps apart."""
    steps = [100 * k for k in range(len(seeds))]
    made = [checkpoint(w, k, step, seed) for k, (step, seed) in enumerate(zip(steps, seeds, strict=True))]
    return Series(steps, made.__getitem__)


def history(name: str, w: World, *, nulls: int = NULLS, copies: int = COPIES, fresh: bool = True) -> History:
    """The chain of a world, and null series of it as it is at its first and at its last checkpoint."""
    length = len(w.scale)
    chain = series(w, [1000 + (k if fresh else 0) for k in range(length)])
    null = {}
    for k, at in enumerate([0, length - 1][:nulls]):
        null[k] = series(w.frozen(at).side_by_side(copies), [2000 + 100 * k + m for m in range(length)])
    sequence = np.repeat(np.arange(SEQUENCES), ROWS // SEQUENCES)
    return History(name, chain, null, sequence, n_latents=w.codes.shape[1] + SPARE)


def side_direction(direction: Float[np.ndarray, " d_in"], seed: int = 5) -> Float[np.ndarray, " d_in"]:
    """A unit direction at a right angle to one."""
    side = np.random.default_rng(seed).standard_normal(D_IN)
    side -= (side @ direction) * direction
    return np.asarray(side / np.linalg.norm(side))


def turned(direction: Float[np.ndarray, " d_in"], degrees: float) -> Float[np.ndarray, " d_in"]:
    """A unit direction turned towards ``side_direction`` of it."""
    angle = np.radians(degrees)
    return np.asarray(np.cos(angle) * direction + np.sin(angle) * side_direction(direction))


def parted(codes: Float[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """The same codes, each row in one of two parts."""
    first = np.random.default_rng(11).random(len(codes)) < 0.5
    return codes * first, codes * ~first


def _still() -> Case:
    return Case("still", history("still", world(0), fresh=False), ())


def _noise() -> Case:
    return Case("noise", history("noise", world(0)), ())


def _birth() -> Case:
    w = world(1)
    w.amplitude[:AT, 0] = 0
    return Case("birth", history("birth", w), (("birth", 300),))


def _late_birth() -> Case:
    w = world(1)
    w.amplitude[:AT, 0] = 0
    w.seen[: AT + 1, 0] = 0
    return Case("late_birth", history("late_birth", w), (("birth", 300),))


def _dense_birth() -> Case:
    w = world(1)
    rng = np.random.default_rng(29)
    w.codes[:, 0] = rng.uniform(1, 2, ROWS) * (rng.random(ROWS) < 1 / 3)
    w.amplitude[:AT, 0] = 0
    return Case("dense_birth", history("dense_birth", w), (("birth", 300),))


def _growth() -> Case:
    w = world(1)
    w.amplitude[:, 0] *= [0, 0, 0.35, 0.65, 1, 1, 1]
    w.seen[: AT + 1, 0] = 0
    return Case("growth", history("growth", w), (("birth", 300),))


def _seedling() -> Case:
    w = world(1)
    w.amplitude[:, 0] *= [0, 0, 0.3, 1, 1, 1, 1]
    w.seen[: AT - 1, 0] = 0
    return Case("seedling", history("seedling", w), (("birth", 300),))


def _death() -> Case:
    w = world(1)
    w.amplitude[AT + 1 :, 0] = 0
    return Case("death", history("death", w), (("death", 400),))


def _gap() -> Case:
    w = world(1)
    w.amplitude[AT : AT + 2, 0] = 0
    return Case("gap", history("gap", w), (("dormancy", 300),))


def _crowded_gap() -> Case:
    """Of feature 0's rows each has one of four others, which the dictionary sees on their other rows alone."""
    w = world(9)
    rng = np.random.default_rng(31)
    which = rng.integers(4, size=ROWS)
    for n in range(4):
        w.codes[:, 1 + n] = np.where((w.codes[:, 0] > 0) & (which == n), 1.5, 0)
        w.directions[:, 1 + n] = w.directions[0, 5 + n]
    w.seen[:, 1:5] = 0
    w.amplitude[AT : AT + 2, 0] = 0
    return Case("crowded_gap", history("crowded_gap", w), (("dormancy", 300),))


def _family() -> World:
    """Feature 0, and features 1 and 2, each on a part of its rows and at cosine 0.7 to it; all carried throughout."""
    w = world(3)
    w.codes[:, 0] = np.where(np.random.default_rng(13).random(ROWS) < 0.08, w.codes[:, 0].max(), 0)
    w.codes[:, 0] *= np.random.default_rng(17).uniform(0.5, 1, ROWS)
    w.codes[:, 1], w.codes[:, 2] = parted(w.codes[:, 0])
    parent = w.directions[0, 0]
    side = np.sqrt(1 - 0.7**2) * side_direction(parent)
    w.directions[:, 1], w.directions[:, 2] = 0.7 * parent + side, 0.7 * parent - side
    return w


def _split() -> Case:
    w = _family()
    w.amplitude[AT:, 0] = w.amplitude[:AT, 1:3] = 0
    return Case("split", history("split", w), (("split", 300),))


def _merge() -> Case:
    w = _family()
    w.amplitude[:AT, 0] = w.amplitude[AT:, 1:3] = 0
    return Case("merge", history("merge", w), (("merge", 300),))


def _bud() -> Case:
    w = world(2)
    w.codes[:, 1] = parted(w.codes[:, 0])[0]
    w.amplitude[:AT, 1] = 0
    return Case("bud", history("bud", w), (("birth", 300),))


def _rotation() -> Case:
    w = world(1)
    w.directions[AT:, 0] = turned(w.directions[0, 0], 60)
    return Case("rotation", history("rotation", w), (("rotation", 300),))


def _slow_sae() -> Case:
    w = world(1)
    w.directions[AT:, 0] = turned(w.directions[0, 0], 60)
    w.seen[AT, 0] = 0.25
    return Case("slow_sae", history("slow_sae", w), (("rotation", 300),))


def _drift() -> Case:
    w = world(1)
    w.directions[:, 0] = [turned(w.directions[0, 0], degrees) for degrees in np.linspace(0, 80, CHECKPOINTS)]
    return Case("drift", history("drift", w), (("drift", 600),))


def _space_turn() -> Case:
    w = world(0)
    planes = np.kron(np.eye(D_IN // 2), np.array([[0, 1], [-1, 0]]))
    w.space[:] = [la.expm(np.radians(10 * k) * planes) for k in range(CHECKPOINTS)]
    return Case("space_turn", history("space_turn", w), ())


def _rescaled() -> Case:
    w = world(0)
    w.scale[AT:] = 5
    return Case("rescaled", history("rescaled", w), ())


def _twins(name: str, first: Float[np.ndarray, " rows"], second: Float[np.ndarray, " rows"], w: World) -> Case:
    """Feature 0 is one latent before the step and two, 1 and 2, from then on; the model never changes."""
    w.codes[:, 1], w.codes[:, 2] = first, second
    w.directions[:, 1] = w.directions[:, 2] = w.directions[0, 0]
    w.amplitude[AT:, 0] = w.amplitude[:AT, 1:3] = 0
    return Case(name, history(name, w), ())


def _duplicate() -> Case:
    w = world(3)
    return _twins("duplicate", w.codes[:, 0] / 2, w.codes[:, 0] / 2, w)


def _torn() -> Case:
    w = world(3)
    return _twins("torn", *parted(w.codes[:, 0]), w)


def _transient() -> Case:
    w = world(1)
    w.amplitude[:2, 0] = w.amplitude[5:, 0] = 0
    return Case("transient", history("transient", w), (("birth", 200), ("death", 500)))


def _flicker() -> Case:
    w = world(1)
    w.amplitude[:, 0] = 0
    w.imagined[AT, 0] = 1
    return Case("flicker", history("flicker", w), ())


def _one_checkpoint() -> Case:
    return Case("one_checkpoint", history("one_checkpoint", world(0, 1), nulls=0), ())


def _two_checkpoints() -> Case:
    return Case("two_checkpoints", history("two_checkpoints", world(0, 2)), ())


def _no_live_latents() -> Case:
    w = world(0)
    w.seen[:] = 0
    return Case("no_live_latents", history("no_live_latents", w), ())


def _empty_in_the_middle() -> Case:
    w = world(0)
    w.seen[AT] = 0
    return Case("empty_in_the_middle", history("empty_in_the_middle", w), ())


MADE: dict[str, Callable[[], Case]] = {
    "still": _still,
    "noise": _noise,
    "birth": _birth,
    "late_birth": _late_birth,
    "dense_birth": _dense_birth,
    "growth": _growth,
    "seedling": _seedling,
    "death": _death,
    "gap": _gap,
    "crowded_gap": _crowded_gap,
    "split": _split,
    "merge": _merge,
    "bud": _bud,
    "rotation": _rotation,
    "slow_sae": _slow_sae,
    "drift": _drift,
    "space_turn": _space_turn,
    "rescaled": _rescaled,
    "duplicate": _duplicate,
    "torn": _torn,
    "transient": _transient,
    "flicker": _flicker,
    "one_checkpoint": _one_checkpoint,
    "two_checkpoints": _two_checkpoints,
    "no_live_latents": _no_live_latents,
    "empty_in_the_middle": _empty_in_the_middle,
}
NAMES = tuple(MADE)


@cache
def case(name: str) -> Case:
    """A case by its name; made once, so not to be written to."""
    return MADE[name]()


@cache
def tracked(name: str) -> Tracking:
    """What the tracker says about a case."""
    return track(case(name).history)


@cache
def followed(name: str) -> Followed:
    """The chain of a case with its links and tracks, none of them cut."""
    return followed_history(case(name).history)


def followed_history(history: History) -> Followed:
    """A chain with its links and tracks, its null series left out."""
    carrying = Carrying(history.chain, history.sequence)
    return follow(carrying, link_threshold(carrying))


def published(table: pa.Table, level: float = 0.1) -> tuple[tuple[str, int], ...]:
    """(kind, step) of the events of an ``event_candidates`` table that are published, sorted."""
    return tuple(
        sorted(
            (row["kind"], row["step"])
            for row in table.to_pylist()
            if row["arm"] == "chain" and row["reason"] is None and (row["q_value"] is None or row["q_value"] <= level)
        )
    )
