import re

import pytest
import torch
from torch import nn

from dynamics.capture import match_sites, site_modules, unwrapped

NAMES = ["embed", "blocks", "blocks.0", "blocks.0.mlp", "blocks.0.attn", "blocks.1", "blocks.1.mlp", "blocks.1.attn"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(4, 4)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.module = Block()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("blocks.1.mlp", ["blocks.1.mlp"]),
        ("blocks.*.mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("**.mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
        ("blocks.**", NAMES[1:]),
        ("bl*.0.m?p", ["blocks.0.mlp"]),
        ("*", ["embed", "blocks"]),
        (["blocks.1.mlp", "embed"], ["embed", "blocks.1.mlp"]),
    ],
)
def test_a_pattern_is_matched_segment_by_segment(pattern: str | list[str], expected: list[str]) -> None:
    assert match_sites(NAMES, pattern) == expected


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("block.*.mlp", "blocks.*.mlp"),
        ("blocks.*.mpl", "blocks.*.mlp"),
        ("blocks.0.mlpp", "blocks.0.mlp"),
        ("embedd", "embed"),
        ("block.1", "blocks.1"),
        ("Blocks.1.attn", "blocks.1.attn"),
        ("mlp", "**.mlp"),
        ("0.mlp", "**.0.mlp"),
    ],
)
def test_a_misspelt_site_is_answered_with_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"no module matches site {typo!r}; did you mean {meant!r}")):
        match_sites(NAMES, typo)


def test_a_letter_that_is_missing_from_a_name_is_nearly_always_found() -> None:
    names = [f"blocks.{block}.{part}" for block in range(12) for part in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")]
    typos = [(name[:i] + name[i + 1 :], name) for name in names for i, letter in enumerate(name) if letter.isalpha()]
    found = 0
    for typo, meant in typos:
        with pytest.raises(ValueError, match="no module matches") as refused:
            match_sites(names, typo)
        found += f"did you mean {meant!r}" in str(refused.value)
    assert found >= 0.95 * len(typos)


def test_one_good_pattern_does_not_hide_a_bad_one() -> None:
    with pytest.raises(ValueError, match=r"no module matches site 'nothing'.*The model has: embed, blocks"):
        match_sites(NAMES, ["embed", "nothing"])


def test_no_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="no site was given"):
        match_sites(NAMES, [])


def test_wrappers_leave_no_mark_in_names() -> None:
    plain = list(site_modules(Model()))
    model = Model()
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    assert list(site_modules(model)) == plain
    assert list(site_modules(torch.compile(model, backend="eager"))) == plain
    assert list(site_modules(nn.DataParallel(model))) == plain
    assert "module.mlp" in plain  # a module of the user's that happens to have that name stays
    assert site_modules(model)["blocks.0"] is model.blocks[0]._orig_mod


def test_unwrapped_is_the_model_that_the_user_wrote() -> None:
    model = Model()
    assert unwrapped(torch.compile(nn.DataParallel(model), backend="eager")) is model
    assert unwrapped(model) is model


def test_a_shared_module_is_found_under_both_names() -> None:
    model = Model()
    model.tied = model.blocks[1]
    assert site_modules(model)["tied.mlp"] is site_modules(model)["blocks.1.mlp"]
