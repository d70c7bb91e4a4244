"""SAEs of a run as other libraries' files, and back in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dynamics.files import RunDirectory, export_saes, import_saes, import_snapshots, load_sae, sae_records

SITE = "blocks.0.mlp"
X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
TENSORS = {"W_enc": torch.eye(4, 6), "b_enc": torch.ones(6), "W_dec": torch.eye(6, 4), "b_dec": torch.ones(4)}
TENSORS["W_dec"][4:, 0] = 1.0


def empty_run(where: Path) -> RunDirectory:
    """A run with two snapshots."""
    run = RunDirectory.create(where)
    import_snapshots(where.parent / "snapshots", run, SITE)
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with two TopK SAEs."""
    for folder in ("snapshots", "saes"):
        (tmp_path / folder).mkdir()
    for step in (0, 10):
        safetensors.torch.save_file({"activations": X}, tmp_path / "snapshots" / f"step_{step}.safetensors")
        metadata = {"architecture": "topk", "k": "2"}
        safetensors.torch.save_file(TENSORS, tmp_path / "saes" / f"step_{step}.safetensors", metadata)
    made = empty_run(tmp_path / "run")
    import_saes(tmp_path / "saes", made, SITE)
    return made


@pytest.mark.parametrize("format", ["dynamics", "saelens", "dictionary_learning", "sparsify"])
def test_what_is_exported_comes_in_again_as_it_was(run: RunDirectory, tmp_path: Path, format: str) -> None:
    told: list[tuple[int, int]] = []
    paths = export_saes(run, SITE, tmp_path / "out", format, on_step=lambda *done: told.append(done))
    assert [path.stem for path in paths] == ["step_0", "step_10"]
    assert told == [(1, 2), (2, 2)]
    other = empty_run(tmp_path / "other")
    records = import_saes(tmp_path / "out", other, SITE, format)
    for record, original in zip(records, sae_records(run, SITE, "chain"), strict=True):
        assert (record.step, record.architecture, record.k) == (original.step, "topk", 2)
        torch.testing.assert_close(load_sae(other, record).encode(X), load_sae(run, original).encode(X))
    assert import_saes(tmp_path / "out", other, SITE, format) == records


def test_only_some_steps_and_nothing_is_overwritten(run: RunDirectory, tmp_path: Path) -> None:
    [path] = export_saes(run, SITE, tmp_path / "out", "saelens", [10])
    assert json.loads((path / "cfg.json").read_text())["metadata"] == {"hook_name": SITE}
    with pytest.raises(FileExistsError, match="step_10 is there already; export into a new directory"):
        export_saes(run, SITE, tmp_path / "out", "saelens")
    with pytest.raises(FileNotFoundError, match=r"no SAE of blocks\.0\.mlp at step 7; there is at 0, 10"):
        export_saes(run, SITE, tmp_path / "more", "saelens", [7])
    with pytest.raises(FileNotFoundError, match=r"no SAE of blocks\.1\.mlp: `dynamics sites` lists"):
        export_saes(run, "blocks.1.mlp", tmp_path / "more", "saelens")
    with pytest.raises(ValueError, match="unknown format 'saelen'; did you mean 'saelens'"):
        export_saes(run, SITE, tmp_path / "more", "saelen")
    assert not (tmp_path / "more").exists()


def test_folders_that_hold_no_sae_are_named(run: RunDirectory, tmp_path: Path) -> None:
    other, out = empty_run(tmp_path / "other"), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"no directory .*out; name the one that holds the folders"):
        import_saes(out, other, SITE, "dictionary_learning")
    (out / "step_0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"step_0 has no config\.json, which an SAE of dictionary_learning has"):
        import_saes(out, other, SITE, "dictionary_learning")
    (out / "step_0" / "config.json").write_text('{"trainer": {"dict_class": "AutoEncoder"}}')
    for content in (None, Path("anything but a tensor")):
        torch.save(content, out / "step_0" / "ae.pt") if content else (out / "step_0" / "ae.pt").write_bytes(b"")
        with pytest.raises(ValueError, match=r"step_0: ae\.pt cannot be read as tensors alone") as caught:
            import_saes(out, other, SITE, "dictionary_learning")
        assert "\n" not in str(caught.value)
    torch.save({"bias": 3}, out / "step_0" / "ae.pt")
    with pytest.raises(ValueError, match=r"step_0: ae\.pt holds something else than named tensors"):
        import_saes(out, other, SITE, "dictionary_learning")
    (out / "step_0" / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"step_0/config\.json is no JSON"):
        import_saes(out, other, SITE, "dictionary_learning")
    (out / "step_00").mkdir()
    with pytest.raises(ValueError, match=r"step_0 and step_00 in .* are both of step 0; keep one"):
        import_saes(out, other, SITE, "dictionary_learning")
    assert sae_records(other, SITE) == []
