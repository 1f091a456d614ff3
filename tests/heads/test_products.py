"""A product by oneDNN against torch's own: values and gradients, whatever the operands' strides."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from heads.products import linear


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
    for way in (linear, functional.linear):
        rows, weight, bias = (one.detach().requires_grad_() for one in operands(shape))
        result = way(rows, weight, bias if biased else None)
        (result * torch.linspace(-1, 1, 130)).sum().backward()
        found.append([result, rows.grad, weight.grad, *([bias.grad] if biased else [])])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


def test_other_formats_are_multiplied_as_well():
    rows, weight, bias = (one.double() for one in operands("whole"))
    assert torch.equal(linear(rows, weight, bias), functional.linear(rows, weight, bias))
