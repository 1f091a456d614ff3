"""The Triton kernels against plain torch: on a GPU where there is one, else in the interpreter, if Triton is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's CUDA builds")

from cache.batching.packing import pack
from cache.batching.ragged import Sequences
from cache.model.attention import Blocks
from cache.model.native.ops import EAGER
from cache.model.native.triton_ops import FusedKernels
from tests.triton_interpreter import DEVICE, can_run, interpreted, starts_it

HEADS, KV_HEADS, DIM = 4, 2, 32


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE)


@starts_it
def test_they_hold_in_the_interpreter():
    assert "13 passed" in interpreted(__file__)


@can_run
def test_norm_and_gate_are_those_of_torch():
    torch.manual_seed(0)
    states, weight, both = random(5, 96), random(96), random(5, 2 * 1100)
    fused = FusedKernels()
    assert torch.allclose(fused.rms_norm(states, weight, 1e-6), EAGER.rms_norm(states, weight, 1e-6), atol=1e-5)
    assert torch.allclose(fused.gate(both), EAGER.gate(both), atol=1e-5)


@can_run
@pytest.mark.parametrize("window", [None, 37])
@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("blocks", [(64, 64), (64, 32), (32, 64)])
def test_attention_over_a_trie_is_that_of_torch(monkeypatch, window, normed, blocks):
    for name, block in zip(("QUERY_BLOCK", "KEY_BLOCK"), blocks, strict=True):
        monkeypatch.setattr(f"cache.batching.block_mask.{name}", block)
        monkeypatch.setattr(f"cache.model.native.triton_ops.{name}", block)
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    lists = [[4, 5, 6] * 60 + generator.integers(4, 8, n).tolist() for n in (1, 2, 30, 90, 3)]
    lists += [generator.integers(4, 6, n).tolist() for n in generator.integers(1, 9, 60)]
    (batch,) = pack(Sequences.of(lists), "trie", 10**6)
    nodes = len(batch.ids)
    joint = random(nodes, (HEADS + 2 * KV_HEADS) * DIM)
    rotary = tuple(random(nodes, DIM // 2).repeat(1, 2) for _ in range(2))
    norms = random(HEADS + KV_HEADS, DIM) if normed else None
    rest = (rotary, norms, 1e-6)
    plan = Blocks.of(batch.end, batch.positions, DEVICE)
    expected = EAGER.attend(joint.clone(), (HEADS, KV_HEADS), *rest, plan, DIM**-0.5, window)
    trie = batch.with_block_lists(windowed=window is not None).laid_out.on(DEVICE)
    got = FusedKernels().attend(joint.clone(), (HEADS, KV_HEADS), *rest, trie, DIM**-0.5, window)
    # a GPU multiplies float32 in three tf32 products or so; the interpreter exactly
    assert (got - expected).norm() <= (2e-3 if DEVICE == "cuda" else 1e-6) * expected.norm()
