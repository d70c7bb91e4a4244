"""How the time that tracking takes grows with the number of checkpoints.

    OMP_NUM_THREADS=1 python -m studies.benchmarks.growth [--checkpoints 12 24 48] [--features 320] [--rows 20000]

Planted worlds of the level hard with oracle dictionaries, so that nothing but the tracking stage is timed; three null
series of four checkpoints of a world in which no event happens, d 64. Prints the seconds, and the seconds for each
checkpoint more than in the line before.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from dynamics.tracking import Checkpoint, History, Series, live_checkpoint, track
from studies.planted.config import preset
from studies.planted.worlds import World

NULLS, NULL_LENGTH = 3, 4


def oracle_series(world: World) -> Series:
    """The checkpoints of a world as a perfect SAE shows them, in memory."""
    made = [_checkpoint(world, i) for i in range(len(world.steps))]
    return Series(world.steps, made.__getitem__)


def _checkpoint(world: World, i: int) -> Checkpoint:
    x, truth = world.activations(i), world.oracle(i)
    x = x - x.mean(axis=0)
    scale = np.float32(np.sqrt(x.shape[1] / np.square(x).sum(axis=1).mean()))
    codes = sp.csr_array(truth.codes.astype(np.float32) * scale)
    return live_checkpoint(world.steps[i], x * scale, codes, truth.directions.astype(np.float32), float(scale))


def main(arguments: list[str] | None = None) -> list[float]:
    """Tracks ever longer worlds; returns the seconds that each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--features", type=int, default=320)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args(arguments)
    size = {"features": options.features, "rows": options.rows}
    still = [World(preset("quiet", checkpoints=NULL_LENGTH, **size), 100 + n) for n in range(NULLS)]
    nulls, seconds = {n: oracle_series(world) for n, world in enumerate(still)}, list[float]()
    print(f"{'checkpoints':>12}{'seconds':>12}{'for one more':>14}")
    for n, count in enumerate(options.checkpoints):
        world = World(preset("hard", checkpoints=count, **size), 0)
        history = History("growth", oracle_series(world), nulls, world.sequences, options.features)
        begun = time.perf_counter()
        with threadpool_limits(1):
            track(history)
        seconds.append(time.perf_counter() - begun)
        more = (seconds[-1] - seconds[-2]) / (count - options.checkpoints[n - 1]) if n else float("nan")
        print(f"{count:>12}{seconds[-1]:>12.2f}{more:>14.2f}", flush=True)
    return seconds


if __name__ == "__main__":
    main()
