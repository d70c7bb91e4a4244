"""The first promise: tracking never changes or breaks the training that it watches.

Each training runs with and without the tracker, and one digest over weights, buffers, optimiser states, random states
and losses has to be the same. The scripts in ``tests/undisturbed`` also know ``compiled part, inductor``, which needs a
C++ compiler and half a minute.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "undisturbed"
POINTS = ["reading", "fingerprint", "writing", "random states", "handing over", "closing"]
ERRORS = ["MemoryError", "OSError", "OutOfMemoryError", "UserWarning", "AssertionError"]
FAULTS = [f"fault/{point}/MemoryError" for point in POINTS]
EVERY_FAULT = [f"fault/{point}/{error}" for point in POINTS for error in ERRORS]

# Of each training: who works on the snapshots, or what goes wrong; "naive" is a look without guards, for comparison.
LOOPS = {
    "plain": ["naive", "later", "inline", "worker", *EVERY_FAULT],
    "tied weights": ["later"],
    "frozen part": ["later"],
    "bf16 weights": ["later"],
    "checkpointed": ["later"],
    "accumulation": ["later"],
    "loader workers": ["later"],
    "autocast bf16": ["later"],
    "before backward": ["later"],
    "probe from a loader": ["naive", "later"],
    "compiled part, aot_eager": ["naive", "later"],
    "accelerate": ["naive", "later"],
    "accelerate bf16": ["later"],
}
LIGHTNING = {
    "lightning": ["naive", "later", "inline", "worker", *FAULTS],
    "lightning bf16-mixed": ["later"],
    "lightning bf16-true": ["later"],
    "lightning accumulation": ["later"],
    "lightning two optimizers": ["later"],
    "lightning compiled part": ["later"],
    "lightning checkpointed": ["later"],
}
SCRIPT_OF = {
    "loops": LOOPS,
    "lightning_trainer": LIGHTNING,
    "lightning_trainer on two ranks": {
        "lightning ddp": ["naive", "later"],
        "lightning ddp, layer norms": ["later all"],  # "all": each rank shows its share of the probe
        "lightning fsdp2": ["later all"],
    },
    "lightning_trainer in its own processes": {
        "lightning ddp_fork": ["later"],
        "lightning ddp_notebook": ["worker"],
        "lightning ddp_spawn": ["later"],
    },
    "huggingface_trainer": {"huggingface": ["naive", "later", "inline", *FAULTS]},
}

AS = {"lightning ddp_notebook": "lightning ddp_fork", "lightning ddp_spawn": "lightning ddp_fork"}
"""Trainings that come out as another one does: it is not done again without the tracker."""


def digests(script: str, trainings: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{script}.py"), *(_modes(name, modes) for name, modes in trainings.items())],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _modes(name: str, modes: list[str]) -> str:
    return f"{name}:{','.join(modes if name in AS else ['off', *modes])}"


@pytest.mark.parametrize("name", SCRIPT_OF)
def test_training_is_bit_identical_with_and_without_the_tracker_whatever_fails(name: str) -> None:
    found = digests(name.split(" ")[0], SCRIPT_OF[name])
    assert found.keys() == SCRIPT_OF[name].keys()
    alone = {training: found[AS.get(training, training)]["off"] for training in found}
    changed = [
        (training, mode) for training in found for mode, got in found[training].items() if got != alone[training]
    ]
    assert changed == [(training, "naive") for training, modes in SCRIPT_OF[name].items() if "naive" in modes]


def test_a_training_notices_no_fault_at_any_point_of_the_tracker() -> None:
    """Every nineteenth point of each door; ``make faults`` walks all of them."""
    command = [sys.executable, "-W", "ignore", str(SCRIPTS / "failpoints.py"), "19"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert {door: result["changed"] for door, result in found.items()} == {door: [] for door in found}
    assert min(result["points"] for result in found.values()) >= 4
