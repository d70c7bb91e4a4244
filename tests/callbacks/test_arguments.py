from typing import Any

import pytest
import torch

from dynamics.callbacks.arguments import named, probe_of, schedule_of
from dynamics.schedule import every, log_spaced

PROBE = torch.arange(6)


def make_probe() -> torch.Tensor:
    return PROBE


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        ("log", log_spaced().steps(50)),
        (20, [0, 20, 40]),
        ([5, 1], [1, 5]),
        (every(25) | every(10), [0, 10, 20, 25, 30, 40, 50]),
    ],
)
def test_a_schedule_may_be_a_word_a_number_or_a_list(value: Any, steps: list[int]) -> None:
    assert schedule_of(value).steps(50) == steps


def test_another_word_is_no_schedule() -> None:
    with pytest.raises(ValueError, match=r"schedule must be \"log\", .* got 'linear'"):
        schedule_of("linear")


def test_a_probe_may_be_named() -> None:
    assert probe_of(f"{__name__}:make_probe") is PROBE
    assert probe_of(f"{__name__}:PROBE") is PROBE
    assert probe_of(PROBE) is PROBE
    assert named(f"{__name__}:make_probe") is make_probe


@pytest.mark.parametrize("name", ["no_such_module:probe", f"{__name__}:no_such_name", "probe", "", ":x"])
def test_a_name_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r'names nothing that can be imported .* write "package.module:name"'):
        probe_of(name)
