import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dynamics.capture import Probe

IDS = torch.arange(12).reshape(4, 3)


class Drawing(Dataset):
    """Draws from every global random state for each example."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(3) + np.random.rand() + random.random()  # noqa: NPY002


def states() -> list[Any]:
    # Not Python's own: the type checker that is on in tests draws from it.
    return [str(np.random.get_state()), torch.get_rng_state().tolist()]  # noqa: NPY002


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (IDS, torch.Tensor),
        ((IDS, IDS), tuple),
        ([IDS, IDS], list),
        ({"input_ids": IDS}, dict),
        (TensorDataset(IDS, IDS), list),
        (DataLoader(IDS, batch_size=3), torch.Tensor),
    ],
)
def test_inputs_keep_their_form(data: Any, form: type) -> None:
    probe = Probe.freeze(data, batch_size=3)
    assert [type(batch) for batch in probe.batches] == [form, form]
    assert probe.n_examples == 4


def test_what_is_frozen_does_not_change_with_the_users_tensors() -> None:
    data = IDS.clone()
    probe = Probe.freeze(data)
    data.zero_()
    assert torch.equal(probe.batches[0], IDS)


def test_reading_a_dataset_moves_no_global_random_state() -> None:
    before = states()
    probe = Probe.freeze(DataLoader(Drawing(), batch_size=2, shuffle=True))
    assert states() == before
    assert probe.n_examples == 5


def test_the_digest_follows_the_content_and_nothing_else() -> None:
    digest = Probe.freeze(IDS).digest
    assert Probe.freeze(IDS.clone(), batch_size=1).digest == digest
    assert Probe.freeze(DataLoader(IDS, batch_size=3)).digest == digest
    others = [
        Probe.freeze(IDS + 1),
        Probe.freeze(IDS.int()),
        Probe.freeze(IDS.reshape(2, 6)),
        Probe.freeze(IDS.flip(0)),
        Probe.freeze(IDS, mask=IDS > 2),
        Probe.freeze(IDS, text=["a"] * 4),
        Probe.freeze(IDS, concepts={"even": IDS % 2 == 0}),
    ]
    assert len({digest, *(other.digest for other in others)}) == 8


def test_rows_are_the_positions_that_the_mask_keeps() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    probe = Probe.freeze(IDS, mask=mask, text=["abc", "def", "ghi", "jkl"], concepts={"even": IDS % 2 == 0})
    rows = probe.rows(3)
    assert probe.n_rows == 6
    assert rows.sequence.tolist() == [0, 0, 0, 1, 1, 2]
    assert rows.position.tolist() == [0, 1, 2, 0, 1, 0]
    assert rows.text == list("abcdeg")
    assert rows.masks["even"].tolist() == [True, False, True, False, True, True]


def test_a_mask_of_shares_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask is true or false, 1 or 0"):
        Probe.freeze(IDS, mask=torch.full((4, 3), 0.5))


def test_an_attention_mask_among_the_inputs_counts() -> None:
    mask = torch.tensor([[1, 1, 0]] * 4)
    assert Probe.freeze({"input_ids": IDS, "attention_mask": mask}).n_rows == 8
    assert Probe.freeze({"input_ids": IDS, "attention_mask": mask}, mask=torch.ones(4, 3)).n_rows == 12


@pytest.mark.parametrize(
    ("text", "positions", "expected"),
    [
        (["w", "x", "y", "z"], None, ["w", "x", "y", "z"]),
        (["abc", "def", "ghi", "jkl"], 3, list("abcdefghijkl")),
        (["cat", "dog", "eel", "fox"], 2, ["cat", "cat", "dog", "dog", "eel", "eel", "fox", "fox"]),
        ([["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]], 2, list("abcdefgh")),
        ([["a", "b"], ["c", "d"], ["e", "f"], ["g", "h"]], None, ["ab", "cd", "ef", "gh"]),
        (list("abcdefgh"), 2, list("abcdefgh")),
    ],
)
def test_text_may_be_given_by_row_or_by_example(text: Any, positions: int | None, expected: list[str]) -> None:
    probe = Probe.freeze(torch.zeros(4, 7), text=text)
    assert probe.rows(positions).text == expected


def test_rows_of_examples_have_no_positions() -> None:
    rows = Probe.freeze(torch.zeros(3, 7), mask=[True, False, True], concepts={"odd": [True, False, False]}).rows(None)
    assert rows.sequence.tolist() == [0, 2]
    assert rows.position.tolist() == [0, 0]
    assert rows.masks["odd"].tolist() == [True, False]


def test_text_of_the_wrong_length_is_refused_with_both_numbers() -> None:
    with pytest.raises(
        ValueError, match=r"text has 5 entries, but the probe has 12 rows \(4 examples of 3 positions\)"
    ):
        Probe.freeze(IDS, text=["a"] * 5)
    with pytest.raises(ValueError, match="text of example 1 has 2 entries, but it has 3 rows"):
        Probe.freeze(IDS, text=[list("abc"), list("ab"), list("abc"), list("abc")])


def test_a_concept_of_the_wrong_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"concept 'odd' has shape \[5\], but the probe has 12 rows"):
        Probe.freeze(IDS, concepts={"odd": torch.ones(5)}).rows(3)


@pytest.mark.parametrize("data", [torch.zeros(0, 3), [], {}, TensorDataset(torch.zeros(0, 3))])
def test_an_empty_probe_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="the probe is empty"):
        Probe.freeze(data)


@pytest.mark.parametrize("data", [["a", "b"], {"text": ["a"]}, [("a", 1), ("b", 2)]])
def test_a_probe_without_tensors_says_what_it_holds(data: Any) -> None:
    with pytest.raises(TypeError, match="the probe holds no tensor but str; give the tensors that the model is called"):
        Probe.freeze(data)


def test_inputs_that_are_not_finite_are_refused() -> None:
    data = torch.zeros(3, 2)
    data[1, 0], data[2, 1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match=r"input 'x' has 2 values of NaN or infinity"):
        Probe.freeze({"x": data})


def test_an_iterator_is_no_probe() -> None:
    with pytest.raises(TypeError, match="a Dataset or a DataLoader, got list_iterator"):
        Probe.freeze(iter([IDS]))


def test_tensors_of_different_lengths_are_no_probe() -> None:
    with pytest.raises(ValueError, match=r"one first axis, the examples; got lengths \[2, 4\]"):
        Probe.freeze((IDS, IDS[:2]))


@pytest.mark.parametrize("mask", [torch.ones(3), torch.ones(3, 3), torch.ones(4, 3, 1)])
def test_a_mask_of_the_wrong_shape_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"mask must be .* for 4 examples, got shape"):
        Probe.freeze(IDS, mask=mask)


def test_a_mask_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no row"):
        Probe.freeze(IDS, mask=torch.zeros(4, 3))
