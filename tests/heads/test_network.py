"""The head's hand-written passes against modules and autograd; counts; prefixes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from heads import network
from heads.errors import HeadsError
from heads.presets import PRESETS, HeadShape, count, preset
from heads.training.sampling import Streams
from heads.training.trainer import initial_weights
from tests.heads.reference import PlainHead


def small_shape(name, classes=(3, 9)):
    row = PRESETS[name]
    return HeadShape.of(replace(row, width=row.width and 24, scale_dim=8), 16, classes)


def random_weights(shape, seeds=1):
    """Weights that leave no term of a gradient zero, float64 [S, P]."""
    flat = initial_weights(shape, [Streams(seed, torch.device("cpu")) for seed in range(seeds)]).double()
    return flat + 0.1 * torch.randn(flat.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_both_passes_equal_modules_with_whole_attention_and_autograd(name, seeds):
    shape, random = small_shape(name), torch.Generator().manual_seed(2)
    flat = random_weights(shape, seeds)
    tensors = network.Tensors(flat, shape)
    inputs = torch.randn(seeds, 5, shape.inputs, dtype=torch.float64, generator=random)
    dropout = (torch.rand(seeds, shape.scales, 5, shape.hidden, generator=random) > 0.3).double() / 0.7
    upstream = torch.randn(seeds, 5, shape.dim, dtype=torch.float64, generator=random)
    grads = torch.zeros_like(flat)
    outputs, tape = network.forward(tensors, shape, inputs, dropout if shape.hidden_layers else None)
    network.backward(tensors, network.Tensors(grads, shape), shape, tape, upstream)

    for s in range(seeds):
        plain = PlainHead(shape).double().take({name: tensor[s] for name, tensor in tensors.items()})
        expected = plain(inputs[s], dropout[s])
        (expected * upstream[s]).sum().backward()
        torch.testing.assert_close(outputs[s], expected, rtol=1e-9, atol=1e-9)
        for tensor, gradient in plain.gradients(tensors).items():
            if not tensor.startswith("classifier"):
                own = network.Tensors(grads, shape)[tensor][s]
                torch.testing.assert_close(own, gradient, rtol=1e-8, atol=1e-9, msg=f"{tensor}, seed {s}")


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_classifier_equals_layer_norm_and_linear(seeds):
    shape = small_shape("paper")
    flat = random_weights(shape, seeds)
    tensors, grads = network.Tensors(flat, shape), network.Tensors(torch.zeros_like(flat), shape)
    inputs = torch.randn(seeds, 4, shape.dim, dtype=torch.float64)
    logits, tape = network.classify(tensors, 1, inputs)
    upstream = torch.randn_like(logits)
    by_inputs = network.classify_backward(tensors, grads, 1, tape, upstream)
    for s in range(seeds):
        plain = PlainHead(shape).double().take({name: tensor[s] for name, tensor in tensors.items()})
        leaf = inputs[s].clone().requires_grad_()
        expected = plain.classifier[1](leaf)
        (expected * upstream[s]).sum().backward()
        torch.testing.assert_close(logits[s], expected)
        torch.testing.assert_close(by_inputs[s], leaf.grad)
        for tensor, gradient in plain.gradients(n for n in tensors if n.startswith("classifier.1")).items():
            torch.testing.assert_close(grads[tensor][s], gradient)


def test_the_paper_preset_counts_as_done_and_as_published():
    shape = HeadShape.of(preset("paper"), 1024, (10, 150))
    done, published = count(shape), count(shape, as_published=True)
    assert (round(done.parameters / 1e6, 2), round(done.flops / 1e6, 1)) == (1.95, 3.9)
    assert (round(published.parameters / 1e6, 2), round(published.flops / 1e6, 1)) == (2.48, 4.9)
    assert (
        done.parameters
        == shape.parameters
        == sum(p.numel() for p in network.Tensors(torch.zeros(1, shape.parameters), shape).values())
    )
    assert published.parameters == sum(p.numel() for p in PlainHead(shape).parameters())


def test_one_block_shared_by_all_scales_would_be_as_small_as_the_design_says():
    assert (
        round(
            count(HeadShape.of(replace(preset("paper"), shared=True), 1024, (10, 150)), as_published=True).parameters
            / 1e6,
            2,
        )
        == 0.90
    )


def test_the_reference_preset_has_the_published_size():
    assert round(count(HeadShape.of(preset("reference"), 1024, (10, 150)), as_published=True).parameters / 1e6) == 14


def test_an_unknown_preset_is_named():
    with pytest.raises(HeadsError, match="'papr'") as error:
        preset("papr")
    assert "paper" in error.value.remedy
