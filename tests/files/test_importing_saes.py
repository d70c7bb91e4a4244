"""SAEs that other programs made."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from dynamics.files import (
    RunDirectory,
    import_saes,
    import_snapshots,
    load_contexts,
    load_latents,
    load_sae,
    sae_records,
)

SITE = "blocks.0.mlp"
X = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [4.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
TENSORS = {
    "W_enc": torch.eye(3, 4),
    "b_enc": torch.zeros(4),
    "W_dec": torch.cat([torch.eye(3), torch.eye(3)[:1]]),
    "b_dec": torch.tensor([0.0, 0.0, 1.0]),
}
METADATA = {"architecture": "relu"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "snapshots").mkdir()
    for step in (0, 10):
        safetensors.torch.save_file({"activations": X}, tmp_path / "snapshots" / f"step_{step}.safetensors")
    run = RunDirectory.create(tmp_path / "run")
    import_snapshots(tmp_path / "snapshots", run, SITE)
    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "saes").mkdir()
    return tmp_path / "saes"


def test_the_chain_is_what_the_files_hold(run: RunDirectory, source: Path) -> None:
    for step in (0, 10, 99):
        safetensors.torch.save_file(TENSORS, source / f"step_{step:05d}.safetensors", METADATA)
    records = import_saes(source, run, SITE)
    assert records == sae_records(run, SITE, "chain")
    assert [(record.step, record.seed, record.architecture, record.n_latents) for record in records] == [
        (0, 0, "relu", 4),
        (10, 0, "relu", 4),
    ]
    assert records[0].fvu == pytest.approx(0.0)
    assert records[0].l0 == pytest.approx(3 / 4)
    assert records[0].dead == pytest.approx(2 / 4)
    assert torch.equal(load_sae(run, records[0]).W_dec, TENSORS["W_dec"])
    assert load_latents(run, records[0]).to_pylist()[0] == {
        "latent": 0,
        "density": 0.5,
        "mean_activation": 3.0,
        "max_activation": 4.0,
    }
    assert load_contexts(run, records[0]).column("row").to_pylist() == [2, 0, 1]


def test_formats_of_other_libraries_wait(run: RunDirectory, source: Path) -> None:
    with pytest.raises(ValueError, match="saelens cannot be read yet; convert them to the format dynamics"):
        import_saes(source, run, SITE, format="saelens")
    with pytest.raises(ValueError, match="unknown format 'saelen'; did you mean 'saelens'"):
        import_saes(source, run, SITE, format="saelen")


def test_steps_without_a_snapshot_are_named(run: RunDirectory, source: Path) -> None:
    safetensors.torch.save_file(TENSORS, source / "step_5.safetensors", METADATA)
    with pytest.raises(FileNotFoundError, match=r"no snapshot of .* \(5 to 5\); it has 0, 10: import the snapshots"):
        import_saes(source, run, SITE)


@pytest.mark.parametrize(
    ("tensors", "metadata", "match"),
    [
        (TENSORS, None, r"step_10\.safetensors: its metadata lack `architecture`"),
        (TENSORS, {"architecture": "relux"}, r"step_10\.safetensors: .*relux"),
        (TENSORS, {"architecture": "topk"}, r"step_10\.safetensors: .* k "),
        (TENSORS, {"architecture": "topk", "k": "many"}, r"step_10\.safetensors: .* k as 'many'; a whole"),
        ({**TENSORS, "W_dec": torch.ones(3, 4)}, METADATA, r"step_10\.safetensors: .*W_dec"),
        ({"W_enc": torch.ones(3, 4)}, METADATA, r"step_10\.safetensors"),
        (
            {"W_enc": torch.eye(5), "b_enc": torch.zeros(5), "W_dec": torch.eye(5), "b_dec": torch.zeros(5)},
            METADATA,
            "is for activations of width 5, those of blocks.0.mlp are 3 wide",
        ),
    ],
)
def test_a_file_without_a_fitting_sae_is_named(
    run: RunDirectory, source: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None, match: str
) -> None:
    safetensors.torch.save_file(tensors, source / "step_10.safetensors", metadata)
    with pytest.raises(ValueError, match=match) as caught:
        import_saes(source, run, SITE)
    assert "\n" not in str(caught.value)
    assert sae_records(run, SITE) == []


def test_a_file_that_is_no_safetensors_is_named(run: RunDirectory, source: Path) -> None:
    (source / "step_10.safetensors").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"step_10\.safetensors"):
        import_saes(source, run, SITE)
