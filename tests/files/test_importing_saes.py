"""SAEs that other programs made."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from dynamics.files import (
    RunDirectory,
    SaeRecord,
    import_saes,
    import_snapshots,
    load_contexts,
    load_latents,
    load_sae,
    sae_records,
)
from dynamics.files.importing_saes import notes_on_imported

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
    for step in (0, 10):
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


def test_an_unknown_format_is_refused_with_the_nearest(run: RunDirectory, source: Path) -> None:
    with pytest.raises(ValueError, match="unknown format 'saelen'; did you mean 'saelens'"):
        import_saes(source, run, SITE, format="saelen")


def write(source: Path, step: int, metadata: dict[str, str] | None = None, **other: torch.Tensor) -> None:
    safetensors.torch.save_file({**TENSORS, **other}, source / f"step_{step}.safetensors", metadata or METADATA)


@pytest.mark.parametrize(
    ("step", "metadata", "match"),
    [
        (5, None, r"an SAE for step 5, of which the run has no snapshot .* has 0, 10: imp"),
        (
            10,
            {"architecture": "topk", "k": "2"},
            r"step_0\.safetensors is relu and step_10\.safetensors is topk; the SAEs",
        ),
    ],
)
def test_files_that_do_not_go_together_are_named_and_nothing_is_taken(
    run: RunDirectory, source: Path, step: int, metadata: dict[str, str] | None, match: str
) -> None:
    write(source, 0)
    write(source, step, metadata)
    with pytest.raises((FileNotFoundError, ValueError), match=match):
        import_saes(source, run, SITE)
    assert sae_records(run, SITE) == []


def test_another_sae_at_a_step_is_refused_and_the_same_one_is_not(run: RunDirectory, source: Path) -> None:
    write(source, 0)
    assert import_saes(source, run, SITE) == import_saes(source, run, SITE)
    write(source, 0, b_enc=torch.ones(4))
    with pytest.raises(FileExistsError, match=r"step_0\.safetensors: another SAE of .* was imported at step 0 before"):
        import_saes(source, run, SITE)
    assert torch.equal(load_sae(run, sae_records(run, SITE)[0]).b_enc, TENSORS["b_enc"])


def record(step: int, n_latents: int) -> SaeRecord:
    facts = {"k": 2, "fvu": 0.1, "l0": 2.0, "dead": 0.0, "imported": True}
    return SaeRecord(site=SITE, arm="chain", step=step, architecture="topk", n_latents=n_latents, **facts)


def test_what_must_be_known_of_imported_saes_is_said() -> None:
    alike = [record(0, 16), record(20, 16)]
    assert notes_on_imported(alike, []) == []
    assert notes_on_imported([], [0, 10]) == []
    [gap] = notes_on_imported(alike, [10])
    assert gap.startswith("no SAE was imported at step 10: `dynamics analyze` trains one of the same form there")
    [gaps, sizes] = notes_on_imported([record(0, 16), record(20, 24)], list(range(1, 9)))
    assert gaps.startswith("no SAE was imported at 8 steps (1, 2, 3, 4, 5, 6, …): ")
    assert sizes.startswith("the imported SAEs differ in size (n_latents 16 to 24): ")


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
