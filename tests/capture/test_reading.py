from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dynamics.capture import Probe, fingerprint, read_activations

X = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))


class Returns(nn.Module):
    """Puts out what it was made with, whatever comes in; counts calls by being called."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(x)


class Outer(nn.Module):
    def __init__(self, site: nn.Module, calls: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.site = site
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            self.site(x)
        return x * self.weight


def read(output: Any, data: Tensor = X, **settings: Any) -> Tensor:
    probe = Probe.freeze(data, batch_size=4, **settings)
    return read_activations(Outer(Returns(output)), probe, ["site"])["site"]


def test_the_axes_become_rows() -> None:
    assert torch.equal(read(lambda x: x[:, 0]), X[:, 0])
    assert torch.equal(read(lambda x: x), X.reshape(30, 4))
    images = X.reshape(6, 5, 2, 2)
    assert torch.equal(read(lambda x: x, images), images.permute(0, 2, 3, 1).reshape(24, 5))


def test_the_mask_drops_rows() -> None:
    mask = torch.arange(30).reshape(6, 5) % 3 == 0
    assert torch.equal(read(lambda x: x, mask=mask), X[mask])
    assert torch.equal(read(lambda x: x[:, 0], mask=mask), X[:, 0])
    assert torch.equal(read(lambda x: x[:, 0], mask=mask[:, 1]), X[mask[:, 1], 0])


@pytest.mark.parametrize("wrap", [lambda x: (x, None), lambda x: [None, x], lambda x: {"a": (x,), "b": None}])
def test_the_first_tensor_of_an_output_is_read(wrap: Any) -> None:
    assert torch.equal(read(wrap), X.reshape(30, 4))


def test_a_model_output_is_read() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    assert torch.equal(read(lambda x: outputs.BaseModelOutput(last_hidden_state=x)), X.reshape(30, 4))


def test_what_comes_after_the_site_cannot_change_what_was_read() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))
    probe = Probe.freeze(X)
    expected = model[0](X).detach().reshape(30, 4)
    assert torch.allclose(read_activations(model, probe, ["0"])["0"], expected)
    assert (expected < 0).any()


def test_a_forward_that_writes_to_its_inputs_leaves_the_probe_alone() -> None:
    probe = Probe.freeze(X)
    model = Outer(nn.Identity())
    read_activations(model, probe, ["site"], forward=lambda m, batch: m(batch.zero_()))
    assert torch.equal(probe.batches[0], X)


def test_inputs_come_in_the_data_type_of_the_weights() -> None:
    model = nn.Sequential(nn.Linear(4, 3)).to(torch.bfloat16)
    read_here = read_activations(model, Probe.freeze(X), ["0"])["0"]
    assert read_here.dtype == torch.float32
    assert torch.equal(read_here, model(X.bfloat16()).detach().float().reshape(30, 3))
    assert read_activations(model, Probe.freeze(X), ["0"], dtype=torch.float16)["0"].dtype == torch.float16


@pytest.mark.parametrize(
    ("data", "forward"),
    [((X, X), None), ([X, X], None), ({"x": X, "y": X}, None), (X, lambda model, batch: model(batch, batch))],
)
def test_a_batch_is_shown_by_its_type(data: Any, forward: Any) -> None:
    class Sum(Outer):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.site(x + y)

    activations = read_activations(Sum(nn.Identity()), Probe.freeze(data), ["site"], forward)
    assert torch.equal(activations["site"], 2 * X.reshape(30, 4))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: None, "site 'site' puts out no tensor but a NoneType"),
        (lambda x: "text", "site 'site' puts out no tensor but a str"),
        (lambda x: torch.fft.fft(x), "site 'site' puts out complex numbers; name a module inside, below or after it"),
        (lambda x: x.sum(), r"site 'site' puts out shape \[\] for 4 examples"),
        (lambda x: x.transpose(0, 1), r"site 'site' puts out shape \[5, 4, 4\] for 4 examples"),
        (lambda x: x[:, 0, 0], r"site 'site' puts out shape \[4\] for 4 examples"),
    ],
)
def test_an_output_that_gives_no_rows_is_refused(output: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(output)


@pytest.mark.parametrize(("calls", "message"), [(0, "was not called"), (2, "was called 2 times")])
def test_a_site_is_called_once(calls: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"site 'site' {message}"):
        read_activations(Outer(nn.Identity(), calls), Probe.freeze(X), ["site"])


def test_a_mask_of_other_positions_names_the_site() -> None:
    with pytest.raises(ValueError, match="site 'site': the mask has 7 positions per example, the output has 5"):
        read(lambda x: x, mask=torch.ones(6, 7))


def test_hooks_live_only_while_the_probe_is_shown() -> None:
    model = Outer(Returns(lambda x: None))
    with pytest.raises(ValueError, match="no tensor"):
        read_activations(model, Probe.freeze(X), ["site"])
    assert not model.site._forward_hooks


def test_a_compiled_module_is_read() -> None:
    model = Outer(nn.Linear(4, 4))
    plain = read_activations(model, Probe.freeze(X), ["site"])["site"]
    model.site = torch.compile(model.site, backend="eager")
    for _ in range(2):
        model(X)
    assert torch.equal(read_activations(model, Probe.freeze(X), ["site"])["site"], plain)
    model.site = model.site._orig_mod
    model.site.compile(backend="eager")
    model(X)
    assert torch.equal(read_activations(model, Probe.freeze(X), ["site"])["site"], plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_the_fingerprint_follows_the_weights(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30)).to(dtype if not dtype.is_complex else torch.float32)
    model.extra = nn.Parameter(torch.randn(1000).to(dtype))
    same = fingerprint(model)
    assert fingerprint(torch.compile(model, backend="eager")) == same
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    assert fingerprint(model) == same
    torch.set_num_threads(threads)
    with torch.no_grad():
        model.extra[777] *= 1.01
    changed = fingerprint(model)
    assert changed != same
    model[1].running_mean[3] += 1
    assert fingerprint(model) not in (same, changed)


def test_a_model_that_cannot_be_shown_the_probe_says_how_it_is_shown() -> None:
    labelled = Probe.freeze(torch.utils.data.TensorDataset(X, torch.zeros(len(X))))
    with pytest.raises(TypeError, match="positional arguments") as caught:
        read_activations(Outer(Returns(lambda x: x)), labelled, ["site"])
    [note] = caught.value.__notes__
    assert note.startswith("The model was shown a batch of the probe, a list of 2: leave labels out")
