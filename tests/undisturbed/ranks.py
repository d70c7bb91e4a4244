"""Ranks on gloo that all show the probe: each training by itself, and with the tracker.

    python tests/undisturbed/ranks.py RANK RANKS FOLDER SCENARIO ...

Each prints what came of a scenario as JSON, a line for each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from ground import digest
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from dynamics.capture import Probe
from dynamics.files import RunDirectory, SnapshotRecord, load_activations, snapshots
from dynamics.maintenance import check
from dynamics.recorder import Recorder
from dynamics.sae.config import SaeConfig
from dynamics.schedule import every

STEPS = 6
SITES = ["1", "3"]
KILLED = "ddp, rank {} is killed"
TALK = tuple(
    f"{how}{what}"
    for what in (
        "all_reduce",
        "all_gather",
        "all_to_all",
        "barrier",
        "broadcast",
        "gather",
        "recv",
        "reduce",
        "scatter",
        "reduce_scatter",
        "send",
    )
    for how in ("", "i", "monitored_")
    if hasattr(dist, f"{how}{what}")
)
"""All that torch's ranks can say to each other."""
PROBE = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(9))
"""Five examples of three positions, in batches of two: the ranks have one and two."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.ReLU()) for _ in range(3)]
    return nn.Sequential(nn.LayerNorm(8), *blocks, nn.Linear(8, 1))


def whole() -> nn.Module:
    return nn.parallel.DistributedDataParallel(network())


def spread() -> nn.Module:
    model, mesh = network(), init_device_mesh("cpu", (dist.get_world_size(),))
    for block in list(model)[1:4]:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def recorder_of(folder: Path, **settings: Any) -> Recorder:
    known = {"probe": Probe.freeze(PROBE, batch_size=2), "schedule": every(2), "work": "later", "ranks": "all"}
    return Recorder(folder, SITES, **{**known, **settings})


def train(
    made: Callable[[], nn.Module],
    recorder: Any,
    look: Callable[[Any, int], None] | None = None,
    first: int = 0,
) -> str:
    """A digest over weights, optimiser, random states and losses of this rank."""
    model = made()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    torch.manual_seed(dist.get_rank())
    losses = []
    for step in range(first, STEPS + 1):
        if recorder is not None:
            recorder.step(model, step)
        if look is not None and step % 2 == 0:
            look(model, step)
        loss = model(torch.randn(4, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    if recorder is not None:
        recorder.close()
    return digest(model, [optimizer], losses)


def shared(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """With the tracker as without; and what the ranks have written together is what a whole model shows."""
    shown: dict[int, dict[str, Tensor]] = {}

    def look(model: Any, step: int) -> None:
        shown[step] = outputs(model)

    alone, recorder = train(made, None), recorder_of(folder / "run")
    together = train(made, recorder)
    train(made, None, look)
    dist.barrier()
    run = RunDirectory.open(folder / "run")
    records = [record for site in SITES for record in snapshots(run, site)]
    return {
        "unchanged": together == alone,
        "skipped": dict(recorder.skipped),
        "steps": [record.step for record in records],
        "alike": all(torch.allclose(load_activations(run, r), shown[r.step][r.site], atol=1e-6) for r in records),
        "sound": [finding.fact for finding in check(run)],
        "left": [path.name for path in (folder / "run" / "shards").rglob("*") if path.is_file()],
    }


def outputs(model: nn.Module) -> dict[str, Tensor]:
    """What a copy of the whole model puts out on the probe."""
    with torch.random.fork_rng():
        copy = network().eval()
    values = [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]
    with torch.no_grad():
        for own, value in zip(copy.parameters(), values, strict=True):
            own.copy_(value)
        inner = [copy[: int(site) + 1](PROBE).flatten(0, 1) for site in SITES]
    return dict(zip(SITES, inner, strict=True))


def failing(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """The second rank cannot write at step 2: nobody waits, and that snapshot alone is not there."""
    from dynamics import shared as module

    real = module.write_shard

    def write(run: Any, record: SnapshotRecord, *given: Any) -> None:
        if record.step == 2 and dist.get_rank() == 1:
            raise OSError(28, "No space left on device")
        real(run, record, *given)

    alone, recorder = train(made, None), recorder_of(folder / "run")
    with mock.patch.object(module, "write_shard", write), mock.patch.object(module, "PATIENCE", 0.5):
        together = train(made, recorder)
    dist.barrier()
    records = snapshots(RunDirectory.open(folder / "run"), "1")
    return {
        "unchanged": together == alone,
        "skipped": dict(recorder.skipped),
        "steps": [record.step for record in records],
    }


def resumed(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """The same training again repeats what is there; one with other weights from step 4 on is a branch."""
    for first in (0, 0, 4):
        train(made, recorder := recorder_of(folder / "run"), first=first)
        dist.barrier()
    recorder = recorder_of(folder / "run")
    for value, step in ((0.1, 6), (0.2, 8), (0.3, 6)):  # goes on, and goes back without being told
        torch.manual_seed(0)
        model = made()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        recorder.step(model, step)
    recorder.close()
    dist.barrier()
    records = snapshots(RunDirectory.open(folder / "run"), "1")
    return {"skipped": dict(recorder.skipped), "steps": [f"{record.branch} {record.step}" for record in records]}


def fill(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def saved(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """What a checkpoint of step 4 keeps, after which the training went on to step 6."""
    recorder, model, places = recorder_of(folder.parent / f"run on {dist.get_world_size()}"), made(), []
    for step in (0, 2, 4, 6):
        recorder.step(fill(model, step), step)
        places.append(recorder.place)
    recorder.close()
    return {"place": places[2], "skipped": dict(recorder.skipped)}


def moved(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """Resumed at step 4 on another number of ranks, by a checkpoint that has its place and by one that has not."""
    found: dict[str, Any] = {}
    for told in (True, False):
        before, run = folder.parent / f"run on {3 - dist.get_world_size()}", folder / f"{dist.get_world_size()} {told}"
        if dist.get_rank() == 0:
            shutil.copytree(before, run)
        dist.barrier()
        recorder, model = recorder_of(run), made()
        if told:
            recorder.resume(("b0", 4))
        for step in (4, 6, 8):
            recorder.step(fill(model, step), step)
        recorder.close()
        dist.barrier()
        records = snapshots(RunDirectory.open(run), "1")
        found["told" if told else "untold"] = [f"{record.branch} {record.step}" for record in records]
    return {**found, "skipped": dict(recorder.skipped)}


def begun_anew(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """What is said where a directory holds the same training on another number of ranks."""
    try:
        recorder_of(folder.parent / f"run on {3 - dist.get_world_size()}").step(fill(made(), 0), 0)
    except ValueError as error:
        return {"said": str(error)}
    return {}


def refused(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """Every rank refuses by itself what the first does, before a rank could wait for one that has ended."""
    recorder = recorder_of(folder)
    recorder.step(fill(made(), 0.1), 0)
    recorder.close()
    dist.barrier()
    said = {}
    for name, value, settings in (
        ("weights", 0.2, {}),
        ("engine", 0.1, {"work": "inline"}),
        ("probe", 0.1, {"probe": Probe.freeze(PROBE + 1, batch_size=2)}),
        ("settings", 0.1, {"sae": SaeConfig(k=3)}),
        ("nothing", 0.1, {}),
    ):
        again = recorder_of(folder, **settings)
        with mock.patch("dynamics.files.settings._trained", return_value=True):
            try:
                again.step(fill(made(), value), 0)
            except ValueError as error:
                said[name] = str(error).removeprefix(str(folder))
        again.close()
    return said


class Listened:
    """A recorder during whose work nothing is said to other ranks."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.said: list[str] = []

    def step(self, model: nn.Module, step: int) -> None:
        with self._listening():
            self._recorder.step(model, step)

    def close(self) -> None:
        with self._listening():
            self._recorder.close()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in TALK:
                heard = mock.patch.object(dist, name, lambda *_, name=name, **__: self.said.append(name))
                stack.enter_context(heard)
            yield


def silent(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """Whoever shows the probe, nothing of ours talks to another rank."""
    said, steps = {}, {}
    for ranks in ("first", "all"):
        listened = Listened(recorder_of(folder / ranks, ranks=ranks))
        train(made, listened)
        dist.barrier()
        said[ranks] = listened.said
        steps[ranks] = [record.step for record in snapshots(RunDirectory.open(folder / ranks), "1")]
    return {"said": said, "steps": steps}


def killed(made: Callable[[], nn.Module], folder: Path, rank: int) -> dict[str, Any]:
    """A rank is killed while it writes: its peer ends where training itself misses it."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    recorder = recorder_of(folder / "run")
    recorder.prepare(model := made())
    if dist.get_rank() == rank:
        with mock.patch("dynamics.shared.write_shard", die):
            recorder.step(model, 0)
    recorder.step(model, 0)
    try:
        model(torch.randn(4, 8)).square().mean().backward()
    except RuntimeError as error:
        recorder.close(drain=False)
        print(
            json.dumps({KILLED.format(rank): {"training": str(error), "skipped": dict(recorder.skipped)}}), flush=True
        )
        os._exit(3)
    return {}


def out_of_step(made: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    """The second rank cannot show the probe at step 2: it ends, and so its peer does not wait for ever."""

    def forward(model: Any, batch: Tensor) -> Tensor:
        if dist.get_rank() == 1 and recorder._begun and recorder._shared._at == 2:
            raise MemoryError("no memory")
        return model(batch)

    recorder = recorder_of(folder / "run", forward=forward)
    train(made, recorder)
    return {}


SCENARIOS = {
    "ddp": (shared, whole),
    "fsdp": (shared, spread),
    "ddp, a rank that cannot write": (failing, whole),
    "fsdp, a rank that cannot write": (failing, spread),
    "ddp, silent": (silent, whole),
    **{KILLED.format(rank): (partial(killed, rank=rank), whole) for rank in range(2)},
    "ddp, resumed": (resumed, whole),
    "fsdp, resumed": (resumed, spread),
    "fsdp, saved": (saved, spread),
    "fsdp, moved": (moved, spread),
    "fsdp, begun anew": (begun_anew, spread),
    "ddp, refused": (refused, whole),
    "fsdp, refused": (refused, spread),
    "fsdp, a rank that cannot show": (out_of_step, spread),
}

if __name__ == "__main__":
    import logging

    logging.getLogger("dynamics").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rank, ranks, folder, *names = sys.argv[1:]
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=int(ranks))
    for name in names:
        scenario, made = SCENARIOS[name]
        mine = Path(folder) / name.replace(" ", "_")
        print(json.dumps({name: scenario(made, mine)}), flush=True)
        dist.barrier()
    dist.destroy_process_group()
