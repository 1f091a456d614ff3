"""The head against modules of torch, a seed at a time; counts; prefixes; products by oneDNN against torch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from heads import network
from heads.errors import HeadsError
from heads.presets import PRESETS, HeadShape, preset
from heads.training.sampling import Streams
from tests.heads.reference import PlainHead


def small_shape(name, classes=(3, 9)):
    row = PRESETS[name]
    return HeadShape.of(replace(row, width=row.width and 24, scale_dim=8), 16, classes)


def random_weights(shape, seeds=1):
    """Weights that leave no term of a gradient zero, float64 [S, P]."""
    flat = network.initial_weights(shape, [Streams(seed, torch.device("cpu")) for seed in range(seeds)]).double()
    return flat + 0.1 * torch.randn(flat.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def leaves(flat, shape):
    """Tensors of weights [S, P] to compute with, as a fit has them: of one seed without a seed dimension."""
    own = flat[0] if len(flat) == 1 else flat
    return {name: tensor.requires_grad_() for name, tensor in network.named(own, shape).items()}


def gradient_of_seed(tensor, s, seeds):
    return tensor.grad if seeds == 1 else tensor.grad[s]


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_outputs_and_each_seed_s_gradient_equal_modules_with_whole_attention(name, seeds):
    shape, random = small_shape(name), torch.Generator().manual_seed(2)
    flat = random_weights(shape, seeds)
    tensors = leaves(flat, shape)
    inputs = torch.randn(seeds, 5, shape.inputs, dtype=torch.float64, generator=random)
    dropout = (torch.rand(seeds, shape.scales, 5, shape.hidden, generator=random) > 0.3).double() / 0.7
    upstream = torch.randn(seeds, 5, shape.dim, dtype=torch.float64, generator=random)
    outputs = network.forward(tensors, shape, inputs, dropout if shape.hidden_layers else None)
    (outputs * upstream).sum().backward()

    for s in range(seeds):
        plain = PlainHead(shape).double().take(network.named(flat[s], shape))
        expected = plain(inputs[s], dropout[s])
        (expected * upstream[s]).sum().backward()
        torch.testing.assert_close(outputs[s], expected, rtol=1e-9, atol=1e-9)
        for tensor, gradient in plain.gradients(tensors).items():
            if not tensor.startswith("classifier"):
                own = gradient_of_seed(tensors[tensor], s, seeds)
                torch.testing.assert_close(own, gradient, rtol=1e-8, atol=1e-9, msg=f"{tensor}, seed {s}")


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_classifier_equals_layer_norm_and_linear(seeds):
    shape = small_shape("paper")
    flat = random_weights(shape, seeds)
    inputs = torch.randn(seeds, 4, shape.dim, dtype=torch.float64)
    found = network.classify(leaves(flat, shape), 1, inputs)
    for s in range(seeds):
        plain = PlainHead(shape).double().take(network.named(flat[s], shape))
        torch.testing.assert_close(found[s], plain.classifier[1](inputs[s]))


def with_attention(shape) -> float:
    """Millions of parameters with the query and key projections, which attention over a single token never uses."""
    return sum(one.numel() for one in PlainHead(shape).parameters()) / 1e6


def test_the_presets_have_the_published_sizes():
    shape = HeadShape.of(preset("paper"), 1024, (10, 150))
    operations = 2 * sum(slot.size * slot.uses for slot in shape.tensors if len(slot.shape) == 2)
    unused = 2 * shape.scales * 2 * shape.width**2
    assert (round(shape.parameters / 1e6, 2), round(operations / 1e6, 1)) == (1.95, 3.9)
    assert (round(with_attention(shape), 2), round((operations + unused) / 1e6, 1)) == (2.48, 4.9)
    assert shape.parameters == sum(t.numel() for t in network.named(torch.zeros(shape.parameters), shape).values())
    shared = HeadShape.of(replace(preset("paper"), shared=True), 1024, (10, 150))
    assert round(with_attention(shared), 2) == 0.90  # as small as the design says
    assert round(with_attention(HeadShape.of(preset("reference"), 1024, (10, 150)))) == 14


def test_an_unknown_preset_is_named():
    with pytest.raises(HeadsError, match="'papr'") as error:
        preset("papr")
    assert "paper" in error.value.remedy


def operands(shape: str):
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(1, 33, 96, generator=generator), torch.randn(130, 96, generator=generator)
    if shape == "parts of wider ones":
        rows, weight = rows.chunk(2, 2)[1], weight.chunk(2, 1)[1]
    elif shape == "transposed":
        rows, weight = torch.randn(96, 33, generator=generator).mT, torch.randn(96, 130, generator=generator).mT
    elif shape == "no rows":
        rows = rows[:, :0]
    elif shape == "one row":
        rows = rows[0, 0]
    return rows, weight, torch.randn(130, generator=generator)


@pytest.mark.parametrize("shape", ["whole", "parts of wider ones", "transposed", "no rows", "one row"])
@pytest.mark.parametrize("biased", [True, False])
def test_products_and_gradients_are_torchs(shape, biased):
    found = []
    for way in (network.linear, functional.linear):
        rows, weight, bias = (one.detach().requires_grad_() for one in operands(shape))
        result = way(rows, weight, bias if biased else None)
        (result * torch.linspace(-1, 1, 130)).sum().backward()
        found.append([result, rows.grad, weight.grad, *([bias.grad] if biased else [])])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


def test_other_formats_are_multiplied_as_well():
    rows, weight, bias = (one.double() for one in operands("whole"))
    assert torch.equal(network.linear(rows, weight, bias), functional.linear(rows, weight, bias))
