"""Linear maps of a BERT are torch's, whatever computes them, and on a CPU with oneDNN oneDNN does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import gelu, linear

from cache.model.native import bert
from cache.model.native.bert import Linear

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 2048, 2500])
def test_a_map_is_that_of_float64(rows, activated):
    generator = torch.Generator().manual_seed(rows)
    inputs, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((rows, 48), (96, 48), (96,)))
    expected = linear(inputs.double(), weight.double(), bias.double())
    expected = gelu(expected) if activated else expected
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        made = Linear(weight.to(dtype), bias.to(dtype), activated=activated)(inputs.to(dtype))
        assert made.dtype == dtype
        assert float((made - expected).norm() / expected.norm()) < tolerance


def test_without_onednn_the_map_is_torchs(monkeypatch):
    inputs, weight, bias = torch.randn(5, 8), torch.randn(6, 8), torch.randn(6)
    monkeypatch.setattr(bert, "_onednn_takes", lambda dtype: False)
    assert torch.equal(Linear(weight, bias, activated=True)(inputs), gelu(linear(inputs, weight, bias)))


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN")
def test_onednn_multiplies_on_a_cpu():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        Linear(torch.randn(6, 8), torch.randn(6))(torch.randn(5, 8))
    assert any("mkldnn::_linear_pointwise" in event.key for event in profile.key_averages())
