"""Snapshots whose rows several ranks have read: each writes its own shard, and what is complete is committed."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dynamics.capture.share import Share
from dynamics.files.atomic import flush_folder, make_folder, write_bytes
from dynamics.files.commits import is_committed, seal
from dynamics.files.layout import RunDirectory
from dynamics.files.sealed import unsealed, write_sealed
from dynamics.files.snapshots import SnapshotRecord, snapshot_facts
from dynamics.files.tensors import tensor_bytes


@dataclass(frozen=True)
class Shard:
    """The rows of a snapshot that one rank has read."""

    share: Share
    probe: str
    """Digest of the probe whose rows these are."""
    mark: str
    """The same on all ranks of one look, and another at any other: rows of two looks are never mixed."""

    @property
    def name(self) -> str:
        """Of its file; names are in the order of the rows."""
        return f"activations.{self.share.rank:05d}-of-{self.share.of:05d}.safetensors"


def write_shard(run: RunDirectory, record: SnapshotRecord, shard: Shard, rows: Float[Tensor, "rows d_in"]) -> None:
    """Put this rank's rows beside those of the others; of the record its site, step and fingerprint count."""
    folder, data = run.shards(record.site, record.step), tensor_bytes({"activations": rows})
    make_folder(folder)
    write_bytes(folder / shard.name, data)
    facts = {"rows": len(rows), "d_in": rows.shape[1], "dtype": str(rows.dtype).removeprefix("torch.")}
    facts |= {"digest": hashlib.sha256(data).hexdigest(), "weights": record.fingerprint}
    write_sealed(_facts_of(folder / shard.name), {**asdict(shard), **facts})


def _facts_of(path: Path) -> Path:
    return path.with_suffix(".json")


def join_shards(run: RunDirectory, record: SnapshotRecord, shard: Shard) -> bool:
    """Commit a snapshot where every rank's rows of the look that ``shard`` belongs to are there.

    Returns:
        Whether they are.
    """
    folder = run.snapshot(record.site, record.step, record.branch)
    if not is_committed(folder) and not _commit(run.shards(record.site, record.step), folder, record, shard):
        return False
    remove_shards(run, record.site, record.step)
    return True


def _commit(source: Path, folder: Path, record: SnapshotRecord, shard: Shard) -> bool:
    shards = [replace(shard, share=Share(rank, shard.share.of)) for rank in range(shard.share.of)]
    facts = [known for each in shards if (known := _facts(source, each)) is not None]
    if len(facts) < len(shards):
        return False
    _gather(source, folder, [each.name for each in shards])
    rows, parts = sum(each["rows"] for each in facts), tuple(each["weights"] for each in facts)
    whole = replace(record, dtype=facts[0]["dtype"], rows=rows, d_in=facts[0]["d_in"], parts=parts)
    digests = {each.name: known["digest"] for each, known in zip(shards, facts, strict=True)}
    seal(folder, snapshot_facts(whole), digests)
    return True


def _gather(source: Path, folder: Path, names: list[str]) -> None:
    make_folder(folder)
    for name in names:
        if (source / name).exists():  # else it was moved before something went wrong here
            os.replace(source / name, folder / name)
    flush_folder(folder)


def _facts(folder: Path, shard: Shard) -> dict[str, Any] | None:
    """What is known of a shard; None where it is not there, or is of another look."""
    try:
        facts = unsealed(_facts_of(folder / shard.name).read_bytes())
    except FileNotFoundError:
        return None
    return facts if (facts.get("probe"), facts.get("mark")) == (shard.probe, shard.mark) else None


def own_fingerprint(record: SnapshotRecord, share: Share, *, spread: bool) -> str | None:
    """That of what this rank had of the weights, for it alone to tell whether it has the same now.

    Args:
        record: of a snapshot that may have been taken by another number of ranks.
        share: which rank this is, of how many.
        spread: each rank has another part of the weights; parts of another number of ranks are never the same.
    """
    if len(record.parts) == share.of:
        return record.parts[share.rank]
    return "" if spread and record.fingerprint is not None else record.fingerprint


def remove_shards(run: RunDirectory, site: str, step: int) -> None:
    """Remove the rows of a snapshot that is committed or given up."""
    shutil.rmtree(run.shards(site, step), ignore_errors=True)


def clear_shards(run: RunDirectory) -> None:
    """Remove what an earlier training left that ended before all ranks had written."""
    shutil.rmtree(run.path / "shards", ignore_errors=True)
