"""SAEs, their latents and contexts on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from dynamics.files import (
    DamagedError,
    RunDirectory,
    SaeRecord,
    load_contexts,
    load_latents,
    load_sae,
    sae_records,
    write_sae,
)

SITE = "blocks.0.mlp"
RECORD = SaeRecord(
    site=SITE,
    arm="chain",
    step=8,
    architecture="topk",
    n_latents=2,
    k=1,
    fvu=0.1,
    l0=1.0,
    dead=0.0,
    geometry={"scale": 2.0},
)
TENSORS = {"W_enc": torch.eye(3)[:, :2], "b_enc": torch.zeros(2), "W_dec": torch.eye(3)[:2], "b_dec": torch.ones(3)}
LATENTS = pa.table(
    {
        "latent": [0, 1],
        "density": pa.array([0.5, 0.0], pa.float32()),
        "mean_activation": [1.0, 0.0],
        "max_activation": [2.0, 0.0],
    }
)
CONTEXTS = pa.table({"latent": [0], "rank": [0], "row": [7], "activation": [2.0]})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def test_an_sae_comes_back_as_it_went_in(run: RunDirectory) -> None:
    record = write_sae(run, RECORD, TENSORS, LATENTS, CONTEXTS)
    assert sae_records(run, SITE) == [record]
    assert replace(record, path="") == RECORD
    sae = load_sae(run, record)
    assert (sae.architecture, sae.k) == ("topk", 1)
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in sae.tensors().items())
    assert load_latents(run, record).to_pylist() == LATENTS.to_pylist()
    assert load_contexts(run, record).to_pylist() == CONTEXTS.to_pylist()


def test_records_are_sorted_and_chosen_by_arm(run: RunDirectory) -> None:
    for arm, seed, step in (("null", 1, 3), ("chain", 0, 100), ("null", 0, 5), ("chain", 0, 9), ("seed", 0, 2)):
        write_sae(run, replace(RECORD, arm=arm, seed=seed, step=step), TENSORS, LATENTS)
    found = [(record.arm, record.seed, record.step) for record in sae_records(run, SITE)]
    assert found == sorted(found)
    assert [record.step for record in sae_records(run, SITE, "null")] == [5, 3]
    assert sae_records(run, SITE, "nu") == []
    assert run.sites() == [SITE]


def test_an_arm_without_contexts_has_an_empty_table(run: RunDirectory) -> None:
    table = load_contexts(run, write_sae(run, replace(RECORD, arm="null"), TENSORS, LATENTS))
    assert (table.num_rows, table.column_names) == (0, ["latent", "rank", "row", "activation"])


def test_a_job_done_twice_leaves_the_first_result(run: RunDirectory) -> None:
    first = write_sae(run, RECORD, TENSORS, LATENTS, CONTEXTS)
    assert write_sae(run, replace(RECORD, fvu=0.9), TENSORS, LATENTS) == first


@pytest.mark.parametrize("name", ["sae.safetensors", "latents.parquet", "contexts.parquet"])
def test_damage_is_found(run: RunDirectory, name: str) -> None:
    record = write_sae(run, RECORD, TENSORS, LATENTS, CONTEXTS)
    path = (run.path / record.path).with_name(name)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedError, match=f"{name} is damaged"):
        [load(run, record) for load in (load_sae, load_latents, load_contexts)]
